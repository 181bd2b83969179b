"""A row that changes its owner begins at its initial value, with nothing left in its optimizer."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from recmoe.embeddings.initial import fill_initial
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import TableSpec
from recmoe.features.row_moves import row_sources
from recmoe.runs.folder import RunFolder
from recmoe.runs.train import RunResult
from recmoe.runs.warm_start import find_warm_start
from recmoe.training.checkpoint_folder import committed

DYNAMIC = "inputs.features.item_id.encoding={kind: dynamic, capacity: 20, admit_after: 2, half_life: 1}"


@pytest.mark.parametrize("backend", ["plain", "torchrec"])
def test_row_of_a_new_owner_is_reset(
    backend: str,
    train: Callable[..., RunResult],
    make_experiment: Callable[..., ExperimentConfig],
    shop_log: pa.Table,
    stored_tensor: Callable[[Path, str], Tensor],
    tmp_path: Path,
) -> None:
    if backend == "torchrec":
        pytest.importorskip("torchrec")
    overrides = (DYNAMIC, f"tables.backend={backend}")
    train(make_experiment(tmp_path, *overrides), tmp_path / "monday")
    # On Tuesday the catalogue has moved on by half: 115 … 144 instead of 100 … 129.
    items = shop_log["item_id"].to_numpy() + 15
    later = shop_log.set_column(shop_log.column_names.index("item_id"), "item_id", pa.array(items))
    (tmp_path / "later").mkdir()
    pq.write_table(later, tmp_path / "later" / "train.parquet")
    # A rate this small leaves the weights as they were carried over.
    still = ("training.max_steps=1", "training.dense_optimizer.lr=1e-30", "tables.optimizer.lr=1e-30")

    config = make_experiment(tmp_path / "later", *overrides, *still)
    result = train(config, tmp_path / "tuesday", warm_start=find_warm_start(str(tmp_path / "monday")))

    old, new = (FeatureEncoder.load(tmp_path / day / "encoder") for day in ("monday", "tuesday"))
    sources = torch.from_numpy(row_sources("item_id", old=old, new=new))
    update = result.folder.state["id_updates"]["item_id"]
    assert update["rows_used"] == 20
    assert update["evicted"] == update["admitted"] > 3
    assert int((sources < 0).sum()) == update["admitted"]
    before, after = (committed(RunFolder(tmp_path / day).checkpoints)[0] for day in ("monday", "tuesday"))
    # Vectors of 4, and two towers' weights of the linear part with their padding, which begin at 0.
    initial = torch.empty(21, 8)
    fill_initial(initial, spec=TableSpec("item_id", 21, 8, "sum", ("item_id",), 4), seed=3, std=0.01)
    assert (initial[:, 4:] == 0).all()
    weights = stored_tensor(after, "tables/item_id")
    # What begins at 0 has moved by the rate.
    assert (weights - initial)[sources < 0].abs().max() < 1e-25
    assert torch.equal(weights[sources >= 0], stored_tensor(before, "tables/item_id")[sources[sources >= 0]])
    assert not torch.equal(weights[sources >= 0], initial[sources >= 0])
    assert weights[sources >= 0, 4:6].count_nonzero() > 0
    # What the one step has added to the sums is the same for rows that were reset and rows that were not.
    sums, then = (
        stored_tensor(after, "table_optimizer/item_id/sum"),
        stored_tensor(before, "table_optimizer/item_id/sum"),
    )
    carried = torch.where(sources >= 0, then[sources.clamp(min=0)], torch.zeros(21))
    untouched = sums == carried
    assert int(untouched.sum()) >= 21 - 9
    assert (carried[sources < 0] == 0).all()
    assert (sums >= carried).all()


def test_bundle_looks_dynamic_ids_up_as_training_did(
    train: Callable[..., RunResult],
    make_experiment: Callable[..., ExperimentConfig],
    shop_log: pa.Table,
    tmp_path: Path,
) -> None:
    result = train(make_experiment(tmp_path, DYNAMIC, "training.max_steps=3"), tmp_path / "run")

    bundle = ModelBundle.load(result.folder.bundle)

    bundle.check_replay()
    rows = bundle.encoder.encode(shop_log.select(bundle.encoder.columns(with_labels=False)), with_labels=False)
    assert bundle.encoder.unknown_counts(shop_log, rows)["item_id"][0] > 0
    assert bundle.encoder.fingerprint == FeatureEncoder.load(result.folder.encoder).fingerprint

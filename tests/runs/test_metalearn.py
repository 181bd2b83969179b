"""A start found on the domains of the training split: what moves, what stays, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recmoe.embeddings.logical import dense_parameters, find_tables
from recmoe.errors import BundleError, ConfigError, DataError, RecmoeError
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.export.lineage import Lineage
from recmoe.ranking.ranker import Ranker
from recmoe.runs.metalearn import MetaLearned, metalearn
from recmoe.runs.origin import find_origin
from recmoe.runs.train import RunResult

Finished = tuple[ExperimentConfig, RunResult]

SMALL = ("adaptation.batch_size=4", "adaptation.steps=2", "adaptation.meta.rounds=3", "adaptation.meta.domains=2")


def learned(run: Path, target: Path, *overrides: str, domain: str = "user_id") -> MetaLearned:
    origin = find_origin(str(run), made_by="metalearn")
    return metalearn(
        origin, target, domain=domain, overrides=[*SMALL, *overrides], cache_dir=target.with_name(f"{target.name}-rows")
    )


def test_start_is_a_bundle_with_other_dense_weights_and_the_same_tables(finished: Finished, tmp_path: Path) -> None:
    run = finished[1].folder
    files = {path: path.read_bytes() for path in sorted(run.bundle.rglob("*")) if path.is_file()}
    before = ModelBundle.load(run.bundle)

    made = learned(run.root, tmp_path / "start")

    after = Ranker.load(tmp_path / "start").bundle
    dense = dict(dense_parameters(before.model))
    assert any(not torch.equal(weight, dense[name]) for name, weight in dense_parameters(after.model))
    tables = find_tables(before.model)[1].table_weights()
    assert all(
        torch.equal(weight, tables[name]) for name, weight in find_tables(after.model)[1].table_weights().items()
    )
    assert after.lineage == Lineage("metalearn", str(run.root), before.digest)
    assert after.config["adaptation"]["steps"] == 2
    assert made.cost.num_rows == 120
    assert files == {path: path.read_bytes() for path in sorted(run.bundle.rglob("*")) if path.is_file()}


def test_same_seed_gives_the_same_start(finished: Finished, shop_log: pa.Table, tmp_path: Path) -> None:
    run = finished[1].folder.root

    first, again, other = (
        learned(run, tmp_path / name, *overrides).bundle.predict(shop_log)
        for name, overrides in (("first", ()), ("again", ()), ("other", ("seed=4",)))
    )

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_domains_are_the_values_of_the_feature_with_enough_rows(
    train: Callable[..., RunResult],
    make_experiment: Callable[..., ExperimentConfig],
    shop_log: pa.Table,
    tmp_path: Path,
) -> None:
    """Of a model with dropout, which is left out of what is written."""
    users = ["a"] * 100 + ["b"] * 80 + [None] * 13 + ["c"] * 7
    place = shop_log.schema.get_field_index("user_id")
    log = shop_log.append_column("impression", pa.array(range(200))).set_column(place, "user_id", pa.array(users))
    for split in ("train", "validation", "test"):
        pq.write_table(log, tmp_path / f"{split}.parquet", row_group_size=60)
    dropout = "model.architecture={kind: mmoe, num_experts: 2, expert_hidden: [8], dropout: 0.5}"
    # The item of a request is none of the features, as with people in Census.
    run = train(make_experiment(tmp_path, dropout, "inputs.item=impression"), tmp_path / "run").folder.root

    made = learned(run, tmp_path / "start", "adaptation.meta.kind=fomaml")

    assert dict(made.domains) == {"a": 100, "b": 80}
    assert dict(made.left_out) == {"c": 7}


REFUSED: list[tuple[str, str, type[RecmoeError], str]] = [
    ("age", "", ConfigError, r"--domain: age has not one id a row; name a feature of kind id"),
    ("usr_id", "", ConfigError, r"--domain: no such feature: usr_id, did you mean user_id\?"),
    (
        "user_id",
        "adaptation.batch_size=50",
        DataError,
        r"user_id has 0 domains of 100 rows .* lower adaptation\.batch_size",
    ),
    ("user_id", "adaptation.meta.kind=maml", ConfigError, r"adaptation\.meta\.kind"),
]


@pytest.mark.parametrize(("domain", "override", "error", "message"), REFUSED)
def test_what_cannot_be_learned_from_is_refused(
    finished: Finished, tmp_path: Path, domain: str, override: str, error: type[RecmoeError], message: str
) -> None:
    with pytest.raises(error, match=message):
        learned(finished[1].folder.root, tmp_path / "start", *([override] if override else []), domain=domain)


def test_folder_that_is_there_is_refused_before_anything_else(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "start").mkdir()

    with pytest.raises(BundleError, match="exists already; choose another folder"):
        learned(finished[1].folder.root, tmp_path / "start", domain="no such feature")

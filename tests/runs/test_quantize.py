"""Quantized tables: what is stored, what is predicted, and what cannot be made of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from recmoe.embeddings.logical import find_tables
from recmoe.embeddings.row_format import QuantizedName, named_format
from recmoe.errors import BundleError, TrainingError
from recmoe.export.bundle import ModelBundle
from recmoe.export.bundle_weights import BundleWeights
from recmoe.export.lineage import Lineage
from recmoe.ranking.ranker import Ranker
from recmoe.runs.prune import prune_experts
from recmoe.runs.quantize import Quantized, quantize_tables
from recmoe.runs.train import RunResult


def quantized(bundle: ModelBundle, target: Path, to: QuantizedName) -> Quantized:
    lineage = Lineage("quantize", "models:/shop/1", bundle.digest)
    return quantize_tables(bundle, target, to=to, lineage=lineage, cache_dir=target.with_name("cache"))


@pytest.fixture(scope="module")
def trained(finished: tuple[Any, RunResult]) -> ModelBundle:
    return ModelBundle.load(finished[1].folder.bundle)


@pytest.mark.parametrize("to", ["bf16", "int8"])
def test_served_rows_are_the_rounded_ones(
    finished: tuple[Any, RunResult], trained: ModelBundle, shop_log: pa.Table, tmp_path: Path, to: QuantizedName
) -> None:
    made = quantized(trained, tmp_path / "small", to)

    served = Ranker.load(tmp_path / "small").score(shop_log)
    row_format, rounding = named_format(to), ModelBundle.load(finished[1].folder.bundle)
    for weight in find_tables(rounding.model)[1].table_weights().values():
        weight.copy_(row_format.unpack(row_format.pack(weight)))
    rounded = Ranker(rounding).score(shop_log)
    assert made.bundle.lineage == Lineage("quantize", "models:/shop/1", made.cost.lineage.digest)
    assert made.bundle.report is not None
    np.testing.assert_allclose(served, rounded, rtol=1e-5, atol=1e-7)
    assert {w.dtype for w in find_tables(made.bundle.model)[1].table_weights().values()} == {row_format.dtype}


def test_cost_tells_bytes_and_the_change_of_every_metric(trained: ModelBundle, tmp_path: Path) -> None:
    cost = quantized(trained, tmp_path / "small", "bf16").cost

    assert cost.after.table_bytes == cost.before.table_bytes / 2
    assert cost.after.table_parameters == cost.before.table_parameters
    assert cost.metrics_before is not None
    assert cost.metrics_after is not None
    assert cost.metrics_before.keys() == cost.metrics_after.keys()
    assert {task.task for task in cost.tasks} == set(trained.tasks.names)


def test_training_goes_on_from_unpacked_rows(trained: ModelBundle, tmp_path: Path) -> None:
    quantized(trained, tmp_path / "small", "int8")

    weights = BundleWeights(tmp_path / "small")

    for name, weight_VD in find_tables(trained.model)[1].table_weights().items():
        found_VD = torch.cat(list(weights.files(name)))
        assert found_VD.dtype == torch.float32
        step_V = (weight_VD.amax(dim=1) - weight_VD.amin(dim=1)) / 255
        assert bool(((found_VD - weight_VD).abs().amax(dim=1) <= 0.51 * step_V + 1e-9).all())


def test_nothing_is_derived_from_quantized_tables(trained: ModelBundle, tmp_path: Path) -> None:
    made = quantized(trained, tmp_path / "small", "int8").bundle
    message = r"tables of shop are quantized.*float32, such as the one it was made from, models:/shop/1"

    with pytest.raises(TrainingError, match=message):
        quantized(made, tmp_path / "smaller", "bf16")
    with pytest.raises(TrainingError, match=message):
        prune_experts(
            made, tmp_path / "two", keep=1, lineage=Lineage("prune-experts", "x", "y"), cache_dir=tmp_path / "cache"
        )
    assert not (tmp_path / "smaller").exists()


def test_taken_folder_is_refused_first(trained: ModelBundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="exists already; choose another folder"):
        quantized(trained, tmp_path, "int8")

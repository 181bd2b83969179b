"""A run with a history goes on from an earlier one: the encoder's weights follow what it reads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.runs.train import RunResult
from recmoe.runs.warm_start import find_warm_start

ExperimentMaker = Callable[..., ExperimentConfig]
Train = Callable[..., RunResult]

NO_STEPS = "training.max_steps=1", "training.dense_optimizer.lr=1e-30", "tables.optimizer.lr=1e-30"
"""A single step that moves nothing."""


def history(columns: str = "{tag: {column: tags, table: tags}}", kind: str = "target_attention") -> str:
    return f"inputs.features.history={{kind: sequence, columns: {columns}, encoder: {{kind: {kind}}}}}"


def predictions(run: Path, rows: pa.Table) -> np.ndarray[Any, Any]:
    return ModelBundle.load(run / "bundle").predict(rows)


@pytest.mark.parametrize("kind", ["mean", "target_attention", "transformer"])
def test_a_history_goes_on_beside_a_new_feature_and_a_new_task(
    kind: str, train: Train, make_experiment: ExperimentMaker, shop_log: pa.Table, tmp_path: Path
) -> None:
    small = (history(kind=kind), "training.max_steps=5")
    earlier = train(make_experiment(tmp_path, *small), tmp_path / "earlier").folder.root
    more = (
        "inputs.features.price_again={kind: numeric, column: price, side: item}",
        "tasks.again={kind: binary, label: click}",
    )

    result = train(
        make_experiment(tmp_path, *small, *NO_STEPS, *more),
        tmp_path / "run",
        warm_start=find_warm_start(str(earlier)),
    )

    now = predictions(tmp_path / "run", shop_log)
    assert np.abs(now[:, :3] - predictions(earlier, shop_log)).max() < 1e-6
    report = result.folder.warm_start_report()
    assert report is not None
    assert (report["features_new"], report["features_dropped"]) == (["price_again"], [])
    assert not [name for name in report["dense_new"] if "history" in name]


def test_an_encoder_that_reads_other_columns_begins_anew(
    train: Train, make_experiment: ExperimentMaker, tmp_path: Path
) -> None:
    earlier = train(make_experiment(tmp_path, history(), "training.max_steps=5"), tmp_path / "earlier").folder.root
    columns = "{word: {column: tags, table: tags}}"

    result = train(
        make_experiment(tmp_path, history(columns), *NO_STEPS),
        tmp_path / "run",
        warm_start=find_warm_start(str(earlier)),
    )

    report = result.folder.warm_start_report()
    assert report is not None
    assert sorted(name for name in report["dense_new"] if "histories" in name) == [
        "histories[history].first.bias",
        "histories[history].first.weight",
        "histories[history].later.0.bias",
        "histories[history].later.0.weight",
        "histories[history].slopes.0",
    ]

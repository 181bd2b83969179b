"""A run that goes on from an earlier model: its predictions before the first step, and what is carried where."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.runs.folder import RunFolder
from recmoe.runs.train import RunResult
from recmoe.runs.warm_start import find_warm_start

ExperimentMaker = Callable[..., ExperimentConfig]
Train = Callable[..., RunResult]

NO_STEPS = "training.max_steps=1", "training.dense_optimizer.lr=1e-30", "tables.optimizer.lr=1e-30"
"""A single step that moves nothing."""


def predictions(run: Path, rows: pa.Table) -> np.ndarray[Any, Any]:
    return ModelBundle.load(run / "bundle").predict(rows)


@pytest.mark.parametrize("source", ["checkpoint", "bundle"])
def test_same_config_and_data_begin_with_the_same_predictions(
    source: str, train: Train, make_experiment: ExperimentMaker, earlier_run: Path, shop_log: pa.Table, tmp_path: Path
) -> None:
    start = find_warm_start(str(earlier_run if source == "checkpoint" else earlier_run / "bundle"))

    result = train(make_experiment(tmp_path, *NO_STEPS), tmp_path / "run", warm_start=start)

    assert np.array_equal(predictions(tmp_path / "run", shop_log), predictions(earlier_run, shop_log))
    report = result.folder.warm_start_report()
    assert report is not None
    assert {name: table["new"] for name, table in report["tables"].items()} == dict.fromkeys(report["tables"], 0)
    assert (report["dense_partly"], report["dense_new"], report["features_new"]) == ([], [], [])
    assert report["has_dense_optimizer"] == (source == "checkpoint")

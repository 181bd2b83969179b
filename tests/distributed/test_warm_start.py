"""A warm start from one placement of the tables into another: two processes and one, sharded and plain."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.runs.train import Launch, RunResult, train_run
from recmoe.runs.warm_start import find_warm_start

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torchrec") is None, reason="torchrec is not installed")

ADAGRAD = "tables.optimizer={kind: adagrad, lr: 0.1}"
SHARDED = ("tables.backend=torchrec", ADAGRAD, "tables.sharding={tags: column_wise, user_id: data_parallel}",
           "inputs.width=8")  # fmt: skip
PLAIN = ("tables.backend=plain", ADAGRAD, "inputs.width=8")
NO_STEPS = ("training.max_steps=1", "training.dense_optimizer.lr=1e-30", "tables.optimizer.lr=1e-30")


@pytest.mark.cluster
def test_warm_start_crosses_placements(
    train: Callable[..., RunResult],
    in_two_processes: Launch,
    make_experiment: Callable[..., ExperimentConfig],
    shop_log: pa.Table,
    tmp_path: Path,
) -> None:
    def predictions(run: str) -> np.ndarray[Any, Any]:
        return ModelBundle.load(tmp_path / run / "bundle").predict(shop_log)

    plain = make_experiment(tmp_path, *PLAIN)
    sharded = make_experiment(tmp_path, *SHARDED)
    train(plain, tmp_path / "first")

    second = train_run(
        sharded,
        tmp_path / "second",
        resume=False,
        launch=in_two_processes,
        is_quiet=True,
        warm_start=find_warm_start(str(tmp_path / "first")),
    )
    moved = make_experiment(tmp_path, *PLAIN, *NO_STEPS)
    third = train(moved, tmp_path / "third", warm_start=find_warm_start(str(tmp_path / "second")))

    assert second.folder.state["world_size"] == 2
    report = second.folder.warm_start_report()
    assert report is not None
    assert all(table["new"] == 0 and table["has_optimizer"] for table in report["tables"].values())
    # The second run has learnt something, and the third, in one process, begins where it ended.
    assert np.abs(predictions("second") - predictions("first")).max() > 1e-3
    assert np.abs(predictions("third") - predictions("second")).max() < 1e-6
    assert third.folder.state["world_size"] == 1

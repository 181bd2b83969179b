"""A run of two workers with experts divided between them, from its config to its bundle."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.runs.folder import RunFolder
from recmoe.runs.train import Launch, RunResult, train_here, train_run
from recmoe.runs.warm_start import find_warm_start
from recmoe.training.checkpoint_contents import compare, read_contents

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(importlib.util.find_spec("torchrec") is None, reason="torchrec is not installed"),
]

OVERRIDES = (
    "tables.backend=torchrec",
    "model.unknown_share=0",
    "model.architecture={kind: mmoe, num_experts: 3, expert_hidden: [8], gate: {kind: top_k, k: 2}}",
    "training.experts=over_workers",
    "training.clip_norm={experts: 0.0005, gates: 0.0005}",
    "training.epochs=6",
    "training.checkpoint_every=3",
    "training.keep_checkpoints=6",
    "training.evaluate_every=2",
    "training.early_stopping={metric: score, patience: 6}",
)
# Rows are shared out among workers: a step has the same ones in any number of them if it has all.
TWO = ("training.batch_size=100", *OVERRIDES)
ONE = ("training.batch_size=200", *OVERRIDES)


def curve(folder: RunFolder, name: str) -> list[float]:
    lines = [json.loads(line) for line in folder.metrics.read_text(encoding="utf-8").splitlines()]
    return [value for line in lines for key, value in line.items() if key == name]


def test_a_run_of_two_workers_is_that_of_one_and_goes_on_in_one_and_back(
    train: Callable[..., RunResult],
    in_two_processes: Launch,
    make_experiment: Callable[..., ExperimentConfig],
    shop_log: pa.Table,
    tmp_path: Path,
) -> None:
    def predictions(run: str) -> np.ndarray[Any, Any]:
        return ModelBundle.load(tmp_path / run / "bundle").predict(shop_log)

    alone = train(make_experiment(tmp_path, *ONE), tmp_path / "alone")
    config = make_experiment(tmp_path, *TWO)
    both = train_run(config, tmp_path / "both", resume=False, launch=in_two_processes, is_quiet=True)

    assert both.folder.state["world_size"] == 2
    assert np.abs(predictions("both") - predictions("alone")).max() < 1e-5
    assert alone.report is not None
    assert both.report is not None
    assert both.report.values() == pytest.approx(alone.report.values(), abs=1e-4)
    saved = sorted(path.name for path in both.folder.checkpoints.iterdir())
    assert saved == sorted(path.name for path in alone.folder.checkpoints.iterdir())
    for step in saved:
        names = [run.folder.checkpoints / step for run in (alone, both)]
        differences = compare(*names)[1]
        assert {one.kind for one in differences} <= {"values"}
        assert max(one.max_abs for one in differences) < 1e-5
        assert len(read_contents(names[0]).tensors) == len(read_contents(names[1]).tensors)
    shares = curve(both.folder, "train/experts/travel_share")
    assert shares
    assert all(0 < share < 1 for share in shares)
    assert min(curve(both.folder, "train/experts/rows_sent")) > 0
    assert not curve(alone.folder, "train/experts/travel_share")

    # One worker goes on with what two have saved, and two with what one has.
    half = train(config, tmp_path / "half")
    for name, source, launch in (("to one", both, train_here), ("to two", half, in_two_processes)):
        folder = RunFolder(shutil.copytree(source.folder.root, tmp_path / name))
        shutil.rmtree(folder.bundle)
        for path in folder.checkpoints.iterdir():
            if path.name != "step-00000003":
                shutil.rmtree(path)
        folder.update_state(status="interrupted")
        train_run(config, folder.root, resume=True, launch=launch, is_quiet=True)
        assert folder.state["status"] == "finished"
        assert folder.state["world_size"] == (1 if name == "to one" else 2)
        assert folder.state["step"] > 3
        assert np.isfinite(predictions(name)).all()


def test_warm_start_crosses_divided_and_whole_experts(
    train: Callable[..., RunResult],
    in_two_processes: Launch,
    make_experiment: Callable[..., ExperimentConfig],
    shop_log: pa.Table,
    tmp_path: Path,
) -> None:
    def predictions(run: str) -> np.ndarray[Any, Any]:
        return ModelBundle.load(tmp_path / run / "bundle").predict(shop_log)

    no_steps = ("training.max_steps=1", "training.dense_optimizer.lr=1e-30", "tables.optimizer.lr=1e-30")
    train(make_experiment(tmp_path, *ONE), tmp_path / "first")
    still = make_experiment(tmp_path, *TWO, *no_steps)

    second = train_run(
        still,
        tmp_path / "second",
        resume=False,
        launch=in_two_processes,
        is_quiet=True,
        warm_start=find_warm_start(str(tmp_path / "first")),
    )

    report = second.folder.warm_start_report()
    assert report is not None
    assert report["has_dense_optimizer"]
    assert not report["dense_new"]
    assert np.abs(predictions("second") - predictions("first")).max() < 1e-6
    # Moments go on, too: those of experts come from the run that had all of them.
    moments = read_contents(second.folder.checkpoints / "step-00000001").tensors
    experts = [one for one in moments if one.name.startswith("dense_optimizer/") and ".experts." in one.name]
    assert {one.name.rpartition("/")[2] for one in experts} == {"exp_avg", "exp_avg_sq", "step"}
    assert all(one.abs_max > 1 for one in experts if one.name.endswith("/step"))

"""A run that was stopped or killed and resumed is the run that went through: curves, report, best weights, bundle."""

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.runs.folder import RunFolder
from recmoe.runs.train import RunResult
from tests.parity.of_runs import assert_same_report, curves

ExperimentMaker = Callable[..., ExperimentConfig]
Train = Callable[..., RunResult]
Event = Callable[[int, Mapping[str, float]], None]

# 25 steps per epoch. The calibration error is least at step 35, and four validations later, at step 56, patience ends.
# Ids are hidden, too, as they are by default.
OVERRIDES = (
    "training.epochs=3",
    "training.evaluate_every=7",
    "training.checkpoint_every=1000",
    "training.early_stopping={metric: 'ctr.ece[all]', patience: 4}",
    "training.schedule={kind: cosine, warmup_steps: 5}",
    "model.architecture.dropout=0.2",
    "model.towers.dropout=0.2",
    "model.weighting={kind: uncertainty}",
    "model.wide={kind: linear, rate: 5}",
)


def assert_same(first: RunResult, second: RunResult) -> None:
    assert curves(second.folder) == curves(first.folder)
    assert_same_report(second.report, first.report)
    keys = ("status", "step", "best_step", "best_value", "num_steps")
    assert [second.folder.state[key] for key in keys] == [first.folder.state[key] for key in keys]
    one, other = ModelBundle.load(first.folder.bundle), ModelBundle.load(second.folder.bundle)
    weights = other.model.state_dict()
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(weights[name], tensor), name
    assert one.replay.predictions_NT.tobytes() == other.replay.predictions_NT.tobytes()


@pytest.mark.parametrize("backend", ["plain", "torchrec"])
def test_resumed_run_equals_uninterrupted_run(
    backend: str, train: Train, make_experiment: ExperimentMaker, tmp_path: Path
) -> None:
    if backend == "torchrec":
        pytest.importorskip("torchrec")
    config = make_experiment(tmp_path, *OVERRIDES, f"tables.backend={backend}")

    def sigterm_at(asked: int, curve: str) -> Event:
        def event(step: int, values: Mapping[str, float]) -> None:
            if step == asked and any(name.startswith(curve) for name in values):
                os.kill(os.getpid(), signal.SIGTERM)

        return event

    def crash(step: int, values: Mapping[str, float]) -> None:
        if step == 49 and "train/lr" not in values:
            raise RuntimeError("the lights went out")

    whole = train(config, tmp_path / "whole")
    halves = tmp_path / "halves"
    # In the middle of an epoch; then while validating, which is told at the step after it; then without a farewell.
    stops = [train(config, halves, event=sigterm_at(10, "train/"))]
    stops.append(train(config, halves, resume=True, event=sigterm_at(42, "val/")))
    with pytest.raises(RuntimeError, match="the lights went out"):
        train(config, halves, resume=True, event=crash)
    failed = RunFolder(halves).state["status"]
    resumed = train(config, halves, resume=True)

    assert [stop.is_interrupted for stop in stops] == [True, True]
    assert whole.folder.state["best_step"] < 42 < 49 < whole.folder.state["step"] < whole.folder.state["num_steps"]
    assert failed == "failed"
    assert resumed.report is not None
    assert_same(whole, resumed)

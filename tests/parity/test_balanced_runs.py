"""Runs with balanced tasks: resumed, they are the run that went through; without a rule, the run without a fork."""

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from recmoe.config import config_from_dict, dump_config
from recmoe.experiment import ExperimentConfig
from recmoe.runs.train import RunResult
from tests.parity.of_runs import curves, weights

ExperimentMaker = Callable[..., ExperimentConfig]
Train = Callable[..., RunResult]


def experiment(make: ExperimentMaker, folder: Path, balancing: str, **weighting: Any) -> ExperimentConfig:
    """Without the product of two tasks: it has no gradient of its own, which GradNorm would read."""
    values = dump_config(
        make(folder, "training.epochs=2", "training.checkpoint_every=1000", "model.towers={hidden: []}")
    )
    values["tasks"].pop("ctcvr")
    values["ranking"] = {}
    values["model"] |= {"balancing": {"kind": balancing}, "weighting": weighting}
    return config_from_dict(ExperimentConfig, values)


@pytest.mark.parametrize(
    ("balancing", "weighting"),
    [
        ("upgrad", {"kind": "dwa", "steps": 4}),
        ("pcgrad", {"kind": "famo", "lr": 0.2}),
        ("sum", {"kind": "gradnorm", "lr": 0.2}),
        ("mgda", {"kind": "uncertainty"}),
    ],
    ids=lambda value: value if isinstance(value, str) else value["kind"],
)
def test_resumed_run_with_balanced_tasks_equals_uninterrupted_run(
    balancing: str, weighting: dict[str, Any], train: Train, make_experiment: ExperimentMaker, tmp_path: Path
) -> None:
    config = experiment(make_experiment, tmp_path, balancing, **weighting)

    def sigterm(step: int, values: Mapping[str, float]) -> None:
        if step == 10 and "train/lr" in values:
            os.kill(os.getpid(), signal.SIGTERM)

    whole = train(config, tmp_path / "whole")
    stopped = train(config, tmp_path / "halves", event=sigterm)
    resumed = train(config, tmp_path / "halves", resume=True)

    assert stopped.is_interrupted
    assert curves(resumed.folder) == curves(whole.folder)
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=0)
    # The weights did something, after the stop too.
    last = [line for line in curves(whole.folder) if "train/lr" in line][-1]
    assert last["train/cvr/loss_weight"] != 1.0
    if balancing != "sum":
        weights_of_gradients = [
            line["train/cvr/gradient_weight"] for line in curves(whole.folder) if "train/lr" in line
        ]
        assert any(weight != 1.0 for weight in weights_of_gradients[1:])


def test_run_whose_gradients_are_added_up_is_the_run_without_a_fork(
    train: Train, make_experiment: ExperimentMaker, tmp_path: Path
) -> None:
    plain, forked = (
        train(experiment(make_experiment, tmp_path, balancing, kind="fixed"), tmp_path / balancing)
        for balancing in ("none", "sum")
    )

    torch.testing.assert_close(weights(forked), weights(plain), rtol=1e-4, atol=1e-5)
    cosines = [line["train/ctr-cvr/cosine"] for line in curves(forked.folder) if "train/ctr-cvr/cosine" in line]
    assert len(cosines) > 1
    assert all(-1.0 <= cosine <= 1.0 for cosine in cosines)
    assert not any(name.endswith(("cosine", "weight")) for line in curves(plain.folder) for name in line)

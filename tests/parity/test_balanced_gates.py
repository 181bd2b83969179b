"""Runs with terms that balance gates: resumed, served and read from older versions."""

import json
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from recmoe.config import config_from_dict, dump_config
from recmoe.experiment import ExperimentConfig
from recmoe.growth.earlier import StoredCheckpoint
from recmoe.runs.train import RunResult
from tests.parity.of_runs import curves, weights

ExperimentMaker = Callable[..., ExperimentConfig]
Train = Callable[..., RunResult]

GROWING = {"kind": "random", "first_k": 1, "grow_steps": 30, "k": 2}
STABLE = {"kind": "stable", "feature": ["item_id", "user_id"], "num_buckets": 40, "width": 4}
TERMS = {"chosen": {"kind": "bias", "rate": 0.02}, "calm": {"kind": "z_loss"}, "alike": {"kind": "mutual_information"}}


def experiment(make: ExperimentMaker, folder: Path, balance: Any) -> ExperimentConfig:
    values = dump_config(make(folder, "training.epochs=2", "training.checkpoint_every=1000"))
    values["model"]["architecture"] = {
        "kind": "mmoe",
        "num_experts": 4,
        "expert_hidden": [8],
        "gate": {"kind": "top_k", "k": 1},
    }
    values["model"]["balance"] = balance
    return config_from_dict(ExperimentConfig, values)


def sigterm(step: int, values: Mapping[str, float]) -> None:
    if step == 10 and "train/lr" in values:
        os.kill(os.getpid(), signal.SIGTERM)


def test_resumed_run_with_terms_equals_uninterrupted_run_and_its_bundle_holds_the_biases(
    train: Train, make_experiment: ExperimentMaker, tmp_path: Path
) -> None:
    config = experiment(make_experiment, tmp_path, TERMS)

    whole = train(config, tmp_path / "whole")
    stopped = train(config, tmp_path / "halves", event=sigterm)
    resumed = train(config, tmp_path / "halves", resume=True)

    assert stopped.is_interrupted
    assert curves(resumed.folder) == curves(whole.folder)
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=0)
    biases = [value for name, value in weights(whole).items() if name.endswith("bias_V")]
    assert len(biases) == 2
    assert all(bias_V.abs().max() > 0.02 for bias_V in biases)
    # Replaying the bundle's rows, which loading does, would have failed without them.
    logged = [line for line in curves(whole.folder) if "train/lr" in line]
    assert all({f"train/balance.{name}/loss" for name in TERMS} <= line.keys() for line in logged)


def test_number_is_the_weight_of_importance(train: Train, make_experiment: ExperimentMaker, tmp_path: Path) -> None:
    number = train(experiment(make_experiment, tmp_path, 0.1), tmp_path / "number")
    named = {"importance": {"kind": "importance", "weight": 0.1}}
    section = train(experiment(make_experiment, tmp_path, named), tmp_path / "section")

    assert curves(number.folder) == curves(section.folder)
    assert "train/balance.importance/loss" in curves(number.folder)[0]
    torch.testing.assert_close(weights(number), weights(section), rtol=0, atol=0)


def test_checkpoint_that_knows_no_terms_goes_on(train: Train, make_experiment: ExperimentMaker, tmp_path: Path) -> None:
    config = experiment(make_experiment, tmp_path, 0.1)
    train(config, tmp_path / "run", event=sigterm)
    (state,) = (tmp_path / "run" / "checkpoints").glob("step-*/state.json")
    values = json.loads(state.read_text())
    values["loss_sums"] = values["loss_sums"][:-1]
    state.write_text(json.dumps(values))

    resumed = train(config, tmp_path / "run", resume=True)

    assert resumed.folder.state["status"] == "finished"
    assert "train/balance.importance/loss" in curves(resumed.folder)[-2]


@pytest.mark.parametrize("gate", [GROWING, {"kind": "policy"}], ids=["random", "policy"])
def test_resumed_run_of_a_gate_that_grows_or_draws_equals_uninterrupted_run(
    gate: dict[str, Any], train: Train, make_experiment: ExperimentMaker, tmp_path: Path
) -> None:
    values = dump_config(experiment(make_experiment, tmp_path, 0.0))
    values["model"]["architecture"]["gate"] = gate
    config = config_from_dict(ExperimentConfig, values)

    whole = train(config, tmp_path / "whole")
    stopped = train(config, tmp_path / "halves", event=sigterm)
    resumed = train(config, tmp_path / "halves", resume=True)

    assert stopped.is_interrupted
    assert curves(resumed.folder) == curves(whole.folder)
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=0)
    num_steps = [value.item() for name, value in weights(whole).items() if name.endswith("num_steps")]
    assert num_steps == ([whole.folder.state["step"]] * 2 if gate["kind"] == "random" else [])
    logged = [line for line in curves(whole.folder) if "train/lr" in line]
    losses = {"train/gates.policy/loss", "train/gates.baseline/loss"}
    assert all((losses <= line.keys()) == (gate["kind"] == "policy") for line in logged)


@pytest.mark.parametrize("stage_1_steps", [5, 20], ids=["stopped in stage 2", "stopped in stage 1"])
def test_router_that_was_frozen_is_that_of_the_same_step_in_a_resumed_run_and_moves_no_more(
    stage_1_steps: int, train: Train, make_experiment: ExperimentMaker, tmp_path: Path
) -> None:
    values = dump_config(experiment(make_experiment, tmp_path, 0.0))
    values["model"]["balance"] = {"even": {"kind": "stable"}}
    values["model"]["architecture"]["gate"] = {**STABLE, "stage_1_steps": stage_1_steps}
    values["training"]["dense_optimizer"]["weight_decay"] = 0.5
    config = config_from_dict(ExperimentConfig, values)

    whole = train(config, tmp_path / "whole")
    stopped = train(config, tmp_path / "halves", event=sigterm)
    (folder,) = (tmp_path / "halves" / "checkpoints").glob("step-*")
    with closing(StoredCheckpoint(folder)) as stored:
        at_stop = {name: stored.dense(name) for name in stored.dense_shapes}
    resumed = train(config, tmp_path / "halves", resume=True)

    assert stopped.is_interrupted
    assert curves(resumed.folder) == curves(whole.folder)
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=0)
    held = weights(whole)
    routers = [name.removesuffix("frozen_NK") for name in held if name.endswith("frozen_NK")]
    assert len(routers) == 2
    for router in routers:
        assert held[f"{router}num_steps"] == whole.folder.state["step"]
        assert 5 < at_stop[f"ranker.{router}num_steps"] < 20
        for name in ("frozen_NK", "frozen_VK"):
            is_same = torch.equal(at_stop[f"ranker.{router}{name}"], held[f"{router}{name}"])
            assert is_same == (stage_1_steps == 5)
        assert not torch.equal(held[f"{router}frozen_NK"], held[f"{router}table_NK"])
    logged = [line for line in curves(whole.folder) if "train/lr" in line]
    learned = [line["train/gates.distilled/loss"] for line in logged]
    assert learned[0] > 0 == learned[-1] == logged[-1]["train/balance.even/loss"]

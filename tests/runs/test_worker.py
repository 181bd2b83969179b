"""What a job does with its checkpoints when the training is over."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.runs.folder import RunFolder
from recmoe.runs.train import RunResult
from recmoe.training.checkpoint import load_weights
from recmoe.training.checkpoint_folder import committed, step_folder, step_of

Train = Callable[..., RunResult]
ExperimentMaker = Callable[..., ExperimentConfig]


def assert_bundle_holds_step(folder: RunFolder, step: int) -> None:
    bundle = ModelBundle.load(folder.bundle)
    expected = {name: tensor.clone() for name, tensor in bundle.model.state_dict().items()}
    # The checkpoint's names are those of the training model around the ranker.
    model = torch.nn.Module()
    model.ranker = bundle.model
    load_weights(step_folder(folder.checkpoints, step), model=model, fingerprint=bundle.encoder.fingerprint)

    for name, tensor in bundle.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def losses_of(folder: RunFolder) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if name.endswith("/loss")} | {"step": line["step"]}
        for line in lines
    ]


def test_bundle_holds_the_weights_that_validated_best(
    train: Train, make_experiment: ExperimentMaker, tmp_path: Path
) -> None:
    # The rate is far too high: it gets worse with every epoch.
    config = make_experiment(
        tmp_path,
        "training.epochs=9",
        "training.dense_optimizer.lr=0.5",
        "training.evaluate_every=5",
        "training.keep_checkpoints=1",
        "training.checkpoint_every=5",
        "training.early_stopping={metric: 'ctr.logloss[all]', patience: 3}",
    )

    folder = train(config, tmp_path / "run").folder

    best, last = folder.state["best_step"], folder.state["step"]
    assert best < last < folder.state["num_steps"]
    # Three validations without a better one: every five steps, and at the end of the epoch.
    assert last - best == 15
    assert [step_of(each) for each in committed(folder.checkpoints)] == [last, best]
    assert_bundle_holds_step(folder, best)


def test_without_early_stopping_the_bundle_holds_the_last_weights(finished: tuple[ExperimentConfig, RunResult]) -> None:
    folder = finished[1].folder

    assert folder.state["best_step"] is None
    assert_bundle_holds_step(folder, 25)


@pytest.mark.parametrize(("epochs", "max_steps", "num_steps"), [(2, None, 50), (2, 30, 30), (1, 30, 25)])
def test_steps_of_a_run_are_those_of_its_epochs_up_to_the_limit(
    train: Train,
    make_experiment: ExperimentMaker,
    tmp_path: Path,
    epochs: int,
    max_steps: int | None,
    num_steps: int,
) -> None:
    limit = "null" if max_steps is None else str(max_steps)
    splits = ("data.validation=[]", "data.test=[]")
    config = make_experiment(tmp_path, f"training.epochs={epochs}", f"training.max_steps={limit}", *splits)

    state = train(config, tmp_path / "run").folder.state

    assert (state["num_steps"], state["step"]) == (num_steps, num_steps)


def test_pipelined_run_is_the_plain_run(train: Train, make_experiment: ExperimentMaker, tmp_path: Path) -> None:
    common = (
        "training.epochs=2",
        "training.evaluate_every=7",
        "model.unknown_share=0.1",
        "tables.backend=torchrec",
        "training.early_stopping={metric: 'ctr.logloss[all]', patience: 9}",
    )

    states, curves = [], []
    for pipeline in ("off", "on"):
        config = make_experiment(tmp_path, f"training.pipeline={pipeline}", *common)
        folder = train(config, tmp_path / pipeline).folder
        states.append([folder.state[name] for name in ("step", "best_step", "best_value")])
        curves.append(losses_of(folder))

    assert states[0] == states[1]
    assert curves[0] == curves[1]
    assert sum("train/ctr/loss" in line for line in curves[0]) == 6

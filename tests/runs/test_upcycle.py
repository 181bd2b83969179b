"""A mixture that begins as a dense model: equal predictions before a step, experts that part, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from recmoe.errors import TrainingError
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.growth.earlier import WarmStart
from recmoe.runs.origin import Origin, find_origin
from recmoe.runs.train import RunResult

ExperimentMaker = Callable[..., ExperimentConfig]
Train = Callable[..., RunResult]

NO_STEPS = "training.max_steps=1", "training.dense_optimizer.lr=1e-30", "tables.optimizer.lr=1e-30"
"""A single step that moves nothing."""
WATCH = "tasks.watch={kind: regression, label: price, transform: log1p, space: click, outside_space: ignore}"
MMOE = "model.architecture={kind: mmoe, num_experts: 3, expert_hidden: [12, 8]}"


@pytest.fixture(scope="module")
def make(make_experiment: ExperimentMaker) -> ExperimentMaker:
    """Experiments over the log with a task of amounts, whose level is set after the last step."""

    def experiment(folder: Path, *overrides: str) -> ExperimentConfig:
        return make_experiment(
            folder, "inputs.features.price={kind: numeric, side: item, column: hour}", WATCH, *overrides
        )

    return experiment


@pytest.fixture(scope="module")
def dense_run(train: Train, make: ExperimentMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some epochs of a dense model."""
    folder = tmp_path_factory.mktemp("dense")
    config = make(folder, "training.epochs=3", "model.architecture={kind: shared_bottom, hidden: [12, 8]}")
    return train(config, folder / "run").folder.root


def start_from(source: Path, *, noise: float = 0.0) -> dict[str, Any]:
    origin = find_origin(str(source), made_by="upcycle")
    return {"origin": origin, "warm_start": WarmStart(str(source), origin.root, None, noise=noise)}


def predictions(run: Path, rows: pa.Table) -> np.ndarray[Any, Any]:
    return ModelBundle.load(run / "bundle").predict(rows)


def experts_of(run: Path) -> dict[str, Tensor]:
    state = ModelBundle.load(run / "bundle").model.state_dict()
    return {name: weight for name, weight in state.items() if ".experts." in name}


MIXTURES = [
    MMOE,
    "model.architecture={kind: mmoe, num_experts: 4, expert_hidden: [12, 8], gate: {kind: top_k, k: 2}}",
    "model.architecture={kind: omoe, num_experts: 2, expert_hidden: [12, 8]}",
    "model.architecture={kind: cgc, num_task_experts: 1, num_shared_experts: 2, expert_hidden: [12, 8]}",
    "model.architecture={kind: ple, num_levels: 1, expert_hidden: [12, 8]}",
]


@pytest.mark.parametrize("architecture", MIXTURES)
def test_mixture_predicts_what_the_dense_model_does_before_its_first_step(
    architecture: str, train: Train, make: ExperimentMaker, dense_run: Path, shop_log: pa.Table, tmp_path: Path
) -> None:
    # Levels of amounts would be set anew on the validation split.
    config = make(tmp_path, architecture, *NO_STEPS, "data.validation=[]")

    result = train(config, tmp_path / "run", **start_from(dense_run))

    found, expected = predictions(tmp_path / "run", shop_log), predictions(dense_run, shop_log)
    assert (np.abs(found - expected) / np.maximum(1.0, np.abs(expected))).max() < 1e-6
    report = result.folder.warm_start_report()
    assert report is not None
    assert report["largest_difference"] < 1e-6
    assert all(".gates[" in name for name in report["dense_new"])
    assert report["dense_new"]
    assert report["dense_partly"] == []


TRUNK = "model.trunk={kind: rank_mixer, tokens: 3, head_width: 2, num_blocks: 1, num_experts: 2}"


def test_mixture_on_a_trunk_is_copies_of_the_network_on_it(
    train: Train, make: ExperimentMaker, shop_log: pa.Table, tmp_path: Path
) -> None:
    dense = make(tmp_path, "model.architecture={kind: shared_bottom, hidden: [12, 8]}", TRUNK)
    root = train(dense, tmp_path / "dense").folder.root

    result = train(make(tmp_path, MMOE, TRUNK, *NO_STEPS, "data.validation=[]"), tmp_path / "run", **start_from(root))

    found, expected = predictions(tmp_path / "run", shop_log), predictions(root, shop_log)
    assert (np.abs(found - expected) / np.maximum(1.0, np.abs(expected))).max() < 1e-6
    report = result.folder.warm_start_report()
    assert report is not None
    assert report["dense_new"]
    assert all(".gates[" in name for name in report["dense_new"])
    assert report["dense_partly"] == []


def test_mixture_on_another_trunk_than_the_network_is_refused(
    train: Train, make: ExperimentMaker, dense_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"model.trunk none, and the mixture on another \(rank_mixer\); .*\"none\""):
        train(make(tmp_path, MMOE, TRUNK), tmp_path / "run", **start_from(dense_run))


def test_experts_begin_as_copies_and_noise_of_the_asked_size_tells_them_apart(
    train: Train, make: ExperimentMaker, dense_run: Path, tmp_path: Path
) -> None:
    config = make(tmp_path, MMOE, *NO_STEPS)

    copies, noisy = (
        train(config, tmp_path / f"noise-{noise}", **start_from(dense_run, noise=noise)).folder for noise in (0.0, 0.05)
    )

    of_network = list(experts_of(dense_run).values())
    for weight_E, of_copies, of_noisy in zip(
        of_network, experts_of(copies.root).values(), experts_of(noisy.root).values(), strict=True
    ):
        assert torch.equal(of_copies, weight_E.expand_as(of_copies))
        assert not torch.equal(of_noisy[0], of_noisy[1])
    shares = [
        float((noise - weight).std() / weight.std())
        for noise, weight in zip(experts_of(noisy.root).values(), of_network, strict=True)
        if weight.numel() > 50
    ]
    assert shares == pytest.approx([0.05] * len(shares), rel=0.15)
    reports = [folder.warm_start_report() for folder in (copies, noisy)]
    # The difference is that of the copies: noise comes after.
    assert all(report is not None and report["largest_difference"] < 1e-6 for report in reports)


def test_upcycled_run_is_one_as_any_other_and_says_where_it_comes_from(
    train: Train, make: ExperimentMaker, dense_run: Path, tmp_path: Path
) -> None:
    config = make(tmp_path, MMOE)

    result = train(config, tmp_path / "run", **start_from(dense_run, noise=0.01))

    lineage, cost = ModelBundle.load(result.folder.bundle).lineage, result.folder.cost_report()
    assert lineage is not None
    assert (lineage.made_by, lineage.source) == ("upcycle", str(dense_run))
    assert cost is not None
    assert cost["after"]["flops_per_row"] > cost["before"]["flops_per_row"]
    assert [task["task"] for task in cost["tasks"]] == ["ctr", "cvr", "ctcvr", "watch"]
    weight_EOD = next(iter(experts_of(result.folder.root).values()))
    assert float((weight_EOD[0] - weight_EOD[1]).abs().max()) > 1e-3


REFUSED = [
    ("mixture", MMOE, r"is a model of kind mmoe; a mixture is upcycled from one whose tasks all read one network"),
    (
        "dense",
        "model.architecture={kind: mmoe, expert_hidden: [12, 6]}",
        r"layers of 12, 8 and the experts of .* have 12, 6; .* set it to \[12, 8\]",
    ),
    (
        "dense",
        "model.architecture={kind: ple, num_levels: 2, expert_hidden: [12, 8]}",
        r"model\.architecture ple has 2 layers of experts; copies of one network make a mixture of one layer",
    ),
    (
        "dense",
        "model.architecture={kind: mmoe, expert_hidden: [12, 8], expert: {kind: gated}}",
        r"whose experts are all of kind mlp",
    ),
]


@pytest.mark.parametrize(("source", "architecture", "message"), REFUSED)
def test_what_cannot_be_upcycled_is_refused_before_training(
    source: str,
    architecture: str,
    message: str,
    train: Train,
    make: ExperimentMaker,
    dense_run: Path,
    tmp_path: Path,
) -> None:
    root = dense_run
    if source == "mixture":
        root = train(make(tmp_path, MMOE, "training.max_steps=1"), tmp_path / "mixture").folder.root

    with pytest.raises(TrainingError, match=message):
        train(make(tmp_path, architecture), tmp_path / "run", **start_from(root))


def test_run_that_was_upcycled_is_not_resumed_as_a_student(
    train: Train, make: ExperimentMaker, dense_run: Path, tmp_path: Path
) -> None:
    config = make(tmp_path, MMOE, "training.max_steps=1")
    train(config, tmp_path / "run", **start_from(dense_run))
    origin: Origin = replace(start_from(dense_run)["origin"], made_by="distil")

    with pytest.raises(TrainingError, match=r"began with upcycle from .*, not with distil from"):
        train(config, tmp_path / "run", resume=True, origin=origin)

"""A run warns of gates and experts that went wrong, once per kind, and its report says so."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from recmoe.errors import TrainingError
from recmoe.experiment import ExperimentConfig
from recmoe.moe.balance.alarms import Alarm
from recmoe.runs.alarms import alarm_warnings, warn_of_alarms
from recmoe.runs.folder import RunFolder
from recmoe.runs.train import RunResult
from recmoe.training import loop

Train = Callable[..., RunResult]
ExperimentMaker = Callable[..., ExperimentConfig]

DEAD = Alarm("dead", "level 0, expert ctr.0", "gate ctr gives it 0.1% of an even share at most")
ALSO_DEAD = Alarm("dead", "level 0, expert cvr.1", "gate cvr gives it 0.0% of an even share at most")
CAPTURED = Alarm("captured", "level 1, gate cvr", "expert shared.0 gets 99.0% of all weight")


def test_each_kind_is_warned_of_once_in_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = RunFolder(tmp_path)

    with caplog.at_level(logging.WARNING, logger="recmoe"):
        warn_of_alarms(folder, 30, [DEAD, ALSO_DEAD])
        # The run goes on in another process.
        warn_of_alarms(RunFolder(tmp_path), 40, [DEAD, CAPTURED])

    first, second = caplog.messages
    assert first.startswith("step 30: dead: level 0, expert ctr.0: gate ctr gives it 0.1% of an even share at most; ")
    assert "level 0, expert cvr.1" in first
    assert "switch on model.balance (kind importance or switch" in first
    assert second.startswith("step 40: captured: level 1, gate cvr: expert shared.0 gets 99.0% of all weight. Against")
    assert alarm_warnings(folder) == (first, second)


def test_run_without_alarms_has_no_warnings(tmp_path: Path) -> None:
    assert alarm_warnings(RunFolder(tmp_path)) == ()


def test_report_of_a_run_whose_gates_were_captured_names_them(
    train: Train,
    make_experiment: ExperimentMaker,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    # So cold that a gate gives a row to one expert, and the first input of a row decides which for nearly all.
    config = make_experiment(
        tmp_path,
        "model.architecture={kind: mmoe, num_experts: 3, expert_hidden: [8], gate: {kind: top_k, k: 1}}",
        "training.dense_optimizer.lr=0.5",
    )

    with caplog.at_level(logging.WARNING, logger="recmoe.runs.alarms"):
        folder = train(config, tmp_path / "run").folder

    warnings = alarm_warnings(folder)
    assert warnings
    assert tuple(caplog.messages) == warnings
    assert all("level 0, " in warning for warning in warnings)
    page = folder.page.read_text()
    assert all(warning.split(": ", 3)[2] in page for warning in warnings)


def test_gate_that_is_not_finite_is_named_before_the_run_stops(
    train: Train, make_experiment: ExperimentMaker, tmp_path: Path
) -> None:
    config = make_experiment(
        tmp_path,
        "model.architecture={kind: mmoe, num_experts: 3, expert_hidden: [8]}",
        "training.dense_optimizer.lr=1e38",
        "training.clip_norm=null",
    )

    with pytest.raises(TrainingError, match="is not finite"):
        train(config, tmp_path / "run")

    warnings = json.loads(RunFolder(tmp_path / "run").alarms.read_text())
    assert "not finite: level 0, gate" in warnings["not finite"]
    assert "training.clip_norm" in warnings["not finite"]


def test_networks_of_a_trunk_are_watched_and_drawn(
    train: Train, make_experiment: ExperimentMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    trunk = "{kind: rank_mixer, tokens: 2, head_width: 2, num_blocks: 2, num_experts: 3, sparsity: 300, active: 0.01}"
    config = make_experiment(tmp_path, f"model.trunk={trunk}", "training.dense_optimizer.lr=0.05")

    folder = train(config, tmp_path / "run").folder

    # So much sparsity switches networks off.
    (dead,) = [text for text in alarm_warnings(folder) if "dead" in text]
    assert "level -1, expert " in dead
    assert "lower model.trunk.sparsity" in dead
    page = folder.page.read_text()
    assert all(f"Level {level}" in page for level in (-2, -1, 0))
    names = {name for line in folder.metrics.read_text().splitlines() for name in json.loads(line)}
    assert {f"experts/level{level}/token 1/usage/1.2" for level in (-2, -1)} <= names
    assert "experts/level-1/similarity" in names

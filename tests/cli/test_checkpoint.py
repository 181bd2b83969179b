"""``recmoe checkpoint``: what it prints, and what its copies hold."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from recmoe.cli import app
from recmoe.experiment import ExperimentConfig


@pytest.fixture(scope="module")
def run_dir(train, make_experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:  # type: ignore[no-untyped-def]
    """A run of 25 steps with checkpoints of steps 20 and 25."""
    folder = tmp_path_factory.mktemp("log")
    config: ExperimentConfig = make_experiment(folder, "training.checkpoint_every=10")
    train(config, folder / "run")
    return folder / "run"


def invoke(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["checkpoint", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result


def test_ls_shows_steps_and_states(run_dir: Path) -> None:
    lines = invoke("ls", run_dir, "--verify").stdout.splitlines()
    rows = json.loads(invoke("ls", run_dir, "--json").stdout)

    assert lines[0].split() == ["step", "saved", "at", "(UTC)", "MB", "saved", "by", "best", "state"]
    assert [line.split()[0] for line in lines[1:]] == ["25", "20"]
    assert [line.split()[-1] for line in lines[1:]] == ["ok", "ok"]
    assert [(row["step"], row["world_size"], row["status"]) for row in rows] == [(25, 1, "ok"), (20, 1, "ok")]


def test_inspect_shows_tables_slots_and_position(run_dir: Path) -> None:
    text = invoke("inspect", run_dir).stdout
    contents = json.loads(invoke("inspect", run_dir / "checkpoints" / "step-00000025", "--json").stdout)

    assert "step 25, epoch 1 with 0 of its rows to go" in text
    assert any(line.split()[:3] == ["user_id", "21", "8"] for line in text.splitlines())
    assert any(line.split()[:3] == ["user_id/sum", "21", "1"] for line in text.splitlines())
    assert "dense weights: " in text
    assert contents["state"]["step"] == 25
    assert "tables/user_id" in [tensor["name"] for tensor in contents["tensors"]]


def test_diff_tells_what_changed(run_dir: Path) -> None:
    first, second = (run_dir / "checkpoints" / f"step-000000{step}" for step in (20, 25))

    text = invoke("diff", first, second).stdout
    same = invoke("diff", second, run_dir).stdout
    found = json.loads(invoke("diff", first, second, "--json").stdout)

    assert any(line.split()[:2] == ["tables/user_id", "values"] for line in text.splitlines())
    assert " 0 differ" in same
    assert {one["kind"] for one in found["differences"]} == {"values"}


def test_unshard_and_reshard_write_what_they_say(run_dir: Path, tmp_path: Path) -> None:
    told = invoke("unshard", run_dir, "--to", tmp_path / "tables").stdout
    index = json.loads(invoke("unshard", run_dir, "--to", tmp_path / "again", "--json").stdout)
    moved = invoke("reshard", run_dir, "--to", tmp_path / "checkpoints", "--workers", 2).stdout
    row = json.loads(invoke("ls", tmp_path, "--json").stdout)[0]

    assert told.startswith(f"wrote {tmp_path / 'tables'}: {len(index['tables'])} tables in ")
    assert (tmp_path / "tables" / index["tables"]["user_id"]["files"][0]).exists()
    assert "step-00000025: the same tensors, their rows spread over the files of 2 workers" in moved
    assert (row["step"], row["status"]) == (25, "ok")
    assert " 0 differ" in invoke("diff", run_dir, tmp_path).stdout

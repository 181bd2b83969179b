"""The README's commands exist with the options they are shown with, and its tree is the tree."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer

from recmoe.cli.app import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CONSOLE = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.removeprefix("$ ").split("  #")[0].strip()
    for block in CONSOLE
    for line in block.splitlines()
    if line.startswith("$ recmoe ")
]
PYTHON = [
    block
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    # tests/serving/test_client.py runs what needs a server.
    if "RankClient" not in block
]
MAKE = re.findall(r"^\$ make (\S+)", "".join(CONSOLE), re.MULTILINE)


def find_command(words: list[str]) -> tuple[Any, list[str]]:
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"there is no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize("line", COMMANDS)
def test_command_is_taken_as_it_is_written(line: str) -> None:
    command, words = find_command(shlex.split(line)[1:])

    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    asked = {word for word in words if word.startswith("-")}

    assert asked <= options, f"{line}: {sorted(asked - options)} not among {sorted(options)}"


def test_readme_shows_the_whole_road() -> None:
    verbs = {line.split()[1] for line in COMMANDS}

    assert {"init", "data", "plan", "train", "evaluate", "predict", "register", "promote", "rollback"} <= verbs
    assert {"serve", "rank"} <= verbs


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set(MAKE) == {"demo", "test", "cluster"}
    assert set(MAKE) <= targets


def test_tree_is_the_tree() -> None:
    tree = README.split("## The house")[1].split("```")[1]
    shown = set(re.findall(r"^  ?(?:  )?([\w/.]+)", tree, re.MULTILINE))
    rooms = {f"{path.name}/" for path in (ROOT / "recmoe").iterdir() if path.is_dir() and path.name != "__pycache__"}

    assert rooms <= shown


def test_python_is_run_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"user_id": rng.integers(20, size=400), "item_id": rng.integers(30, size=400)})
    frame["click"] = (rng.random(400) < np.where(frame["user_id"] % 2, 0.8, 0.2)).astype(int)
    frame["purchase"] = frame["click"] * (rng.random(400) < 0.5)
    frame.to_csv(tmp_path / "shop.csv", index=False)
    monkeypatch.chdir(tmp_path)

    for block in PYTHON:
        exec(compile(block, "README.md", "exec"), {})

    shown = capsys.readouterr().out
    assert len(PYTHON) == 1
    assert re.search(r"click\s+auc\s+all\s+0\.[6-9]", shown), shown
    assert "[100 rows x 6 columns]" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["shop.csv"]

"""The README's commands exist with the options they are shown with, and its tree is the tree."""

import re
import shlex
from pathlib import Path
from typing import Any

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

    assert set(MAKE) == {"demo", "test"}
    assert set(MAKE) <= targets


def test_tree_is_the_tree() -> None:
    tree = README.split("## The house")[1].split("```")[1]
    shown = set(re.findall(r"^  ?(?:  )?([\w/.]+)", tree, re.MULTILINE))
    rooms = {f"{path.name}/" for path in (ROOT / "recmoe").iterdir() if path.is_dir() and path.name != "__pycache__"}

    assert rooms <= shown

"""best_yaml(): the best config as a file that extends the original one."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from recmoe.config_source import keyed_source, merge
from recmoe.config_yaml import read_overrides


def best_yaml(
    original: Path, target: Path, *, overrides: Sequence[str], values: Mapping[str, Any], comments: Sequence[str]
) -> str:
    """The text of ``target``.

    Args:
        original: the config that was tuned.
        overrides: what the command line changed of it.
        values: what the best trial changed beside that, by key path.
        comments: lines to stand at its top.
    """
    source = merge(read_overrides(overrides), keyed_source(values, "best trial"))
    extends = os.path.relpath(original.resolve(), target.resolve().parent)
    document = {"extends": _escaped(extends), **_escaped(source.values)}
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
    return "".join(f"# {line}\n" for line in comments) + text


def _escaped(value: Any) -> Any:
    """Text that would be read as a variable of the environment."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, Mapping):
        return {key: _escaped(inner) for key, inner in value.items()}
    return [_escaped(inner) for inner in value] if isinstance(value, list) else value

"""YAML files and overrides as the source of a config, with the line of every key.

YAML is read by its 1.2 rules: ``1e-3`` is a number, ``no`` and ``2024-01-01`` are text.
"""

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from recmoe.config_source import COMMAND_LINE, Fault, Place, Source, config_error, join_key, merge


def display_name(path: Path) -> str:
    """A file as messages name it: relative to the working directory where it lies below it."""
    resolved = path.resolve()
    return str(resolved.relative_to(Path.cwd())) if resolved.is_relative_to(Path.cwd()) else str(resolved)


def read_file(path: Path) -> Source:
    """A file with the files it extends merged below it.

    Raises:
        ConfigError: a file that is missing, unreadable, not YAML, not a mapping, or extends itself.
    """
    return _read_file(path, asked_at=None, chain=())


def read_overrides(overrides: Sequence[str]) -> Source:
    """``key.path=value`` strings as one tree; the values are YAML, a later one wins.

    Raises:
        ConfigError: an override without ``=``, with an empty key, or with a value that is not YAML.
    """
    place = Place(COMMAND_LINE)
    source = Source({}, {"": place})
    for override in overrides:
        key, equals, text = override.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise config_error([Fault(place, "", f"{override!r} is not of the form key.path=value")], COMMAND_LINE)
        try:
            node = yaml.compose(text, Loader=_Loader)
        except yaml.YAMLError as error:
            raise config_error([Fault(place, key, f"not valid YAML: {_problem(error)}")], COMMAND_LINE) from None
        reader = _Reader(COMMAND_LINE, here=Path.cwd(), has_lines=False)
        value = None if node is None else reader.value(node, ".".join(parts))
        for depth in range(len(parts), 0, -1):
            reader.places[".".join(parts[:depth])] = place
            value = {parts[depth - 1]: value}
        assert isinstance(value, dict)
        source = merge(source, Source(value, reader.places | {"": place}, reader.faults))
    return source


def _read_file(path: Path, *, asked_at: Place | None, chain: tuple[Path, ...]) -> Source:
    file = display_name(path)
    here = path.resolve().parent
    if path.resolve() in chain:
        names = " → ".join(known.name for known in (*chain[chain.index(path.resolve()) :], path))
        raise config_error([Fault(asked_at or Place(file), "extends", f"files extend each other: {names}")], file)
    reader = _Reader(file, here=here, has_lines=True)
    values = reader.value(_compose(path, file, asked_at), "")
    if not isinstance(values, dict):
        raise config_error([Fault(Place(file, 1), "", "a config is a mapping of sections, such as 'training:'")], file)
    reader.places[""] = Place(file, 1)
    bases = values.pop("extends", [])
    bases = [bases] if isinstance(bases, str) else bases
    place = reader.places.get("extends", Place(file, 1))
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise config_error([Fault(place, "extends", "give a file name or a list of file names")], file)
    merged = Source({}, {"": Place(file, 1)})
    for base in bases:
        merged = merge(merged, _read_file(here / base, asked_at=place, chain=(*chain, path.resolve())))
    return merge(merged, Source(values, reader.places, reader.faults))


def _compose(path: Path, file: str, asked_at: Place | None) -> yaml.Node:
    key, place = ("extends", asked_at) if asked_at else ("", Place(file))
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        names = [near.name for near in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, names, n=1)
        hint = f", did you mean {close[0]}?" if close else ""
        message = f"no such file {file}{hint}" if asked_at else f"no such file{hint}"
        raise config_error([Fault(place, key, message)], file) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise config_error([Fault(place, key, f"cannot read {file}: {reason}")], file) from None
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = Place(file, mark.line + 1 if mark else 1)
        raise config_error([Fault(at, "", f"not valid YAML: {_problem(error)}")], file) from None
    if node is None:
        raise config_error([Fault(Place(file, 1), "", "the file is empty")], file)
    return node


def _problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        return ", ".join(part for part in (error.context, error.problem) if part)
    return str(error).splitlines()[0]


class _Loader(yaml.SafeLoader):
    """Scalars by the YAML 1.2 core rules, plus ``_`` inside numbers."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - yaml's own class attribute

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node: yaml.ScalarNode = super().compose_scalar_node(anchor)
        try:
            # JSON, and so YAML, may write a character beyond 16 bits as two halves.
            node.value = node.value.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            problem = f"half a character in {node.value!r}"
            raise yaml.composer.ComposerError(None, None, problem, node.start_mark) from None
        return node


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$", "-+0123456789"),
    ("float", r"^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
    ("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", "-+."),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("merge", r"^<<$", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


class _Reader:
    """Turns YAML nodes into values, noting places and faults on the way."""

    def __init__(self, file: str, *, here: Path, has_lines: bool) -> None:
        self.places: dict[str, Place] = {}
        self.faults: list[Fault] = []
        self._file = file
        self._here = here
        self._has_lines = has_lines
        self._open: list[yaml.Node] = []

    def value(self, node: yaml.Node, key: str) -> Any:
        """Value of a node; its inner places are recorded under ``key``."""
        if any(node is outer for outer in self._open):
            self._fault(node, key, "an alias may not contain itself")
            return None
        self._open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, key)
            if isinstance(node, yaml.SequenceNode):
                for index, item in enumerate(node.value):
                    self.places[join_key(key, index)] = self._place(item)
                return [self.value(item, join_key(key, index)) for index, item in enumerate(node.value)]
            return self._scalar(node, key)
        finally:
            self._open.pop()

    def _mapping(self, node: yaml.MappingNode, section: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        written: set[str] = set()
        merged = [value for name, value in node.value if name.tag.endswith(":merge")]
        for value in (part for parts in merged for part in (parts.value if parts.id == "sequence" else [parts])):
            inner = self.value(value, section)
            if isinstance(inner, dict):
                values = inner | values
            else:
                self._fault(value, section, "<< takes a mapping")
        for name, value in node.value:
            if name.tag.endswith(":merge"):
                continue
            if name.id != "scalar":
                self._fault(name, section, "a key must be plain text")
                continue
            key = join_key(section, name.value)
            if name.value in written:
                self._fault(name, key, "key given twice")
            written.add(name.value)
            self.places[key] = self._place(name)
            values[name.value] = self.value(value, key)
        return values

    def _scalar(self, node: yaml.Node, key: str) -> Any:
        try:
            value = _Loader("").construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            reason = _problem(error) if isinstance(error, yaml.YAMLError) else str(error)
            self._fault(node, key, reason)
            return None
        return self._expand(value, node, key) if isinstance(value, str) else value

    def _expand(self, text: str, node: yaml.Node, key: str) -> str:
        """``${here}``, ``${VAR}`` and ``${VAR:-default}`` filled in; ``$${VAR}`` stays ``${VAR}``."""

        def replacement(match: re.Match[str]) -> str:
            if match["escaped"]:
                return match[0][1:]
            if match["name"] == "here":
                return str(self._here)
            default: str | None = match["default"]
            value = os.environ.get(match["name"], default)
            if value is None:
                message = f"environment variable {match['name']} is not set"
                self.faults.append(Fault(self._place(node), key, message, is_of_value=True))
                return match[0]
            return value

        pattern = r"(?P<escaped>\$)?\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}"
        return re.sub(pattern, replacement, text)

    def _fault(self, node: yaml.Node, key: str, message: str) -> None:
        self.faults.append(Fault(self._place(node), key, message))

    def _place(self, node: yaml.Node) -> Place:
        return Place(self._file, node.start_mark.line + 1 if self._has_lines else None)

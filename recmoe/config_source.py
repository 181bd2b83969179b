"""Source of a config: nested values, each with the place where it was written; merging of sources."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recmoe.errors import ConfigError

COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Place:
    """Where a value was written: a file and its line, or a source without lines."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a config: where, at which key path (may be empty), and what."""

    place: Place
    key: str
    message: str
    is_of_value: bool = False
    """Whether it goes away when another file or an override replaces the value."""

    def __str__(self) -> str:
        return f"{self.place}  {self.key}: {self.message}" if self.key else f"{self.place}  {self.message}"


@dataclass(frozen=True)
class Source:
    """Values as written, the place of each key path, and the faults met while reading.

    Example: the file ``a.yaml`` with the lines ``training:`` and ``  steps: 10``::

        values   {"training": {"steps": 10}}
        places   {"": a.yaml:1, "training": a.yaml:1, "training.steps": a.yaml:2}
    """

    values: dict[str, Any]
    places: dict[str, Place]
    faults: list[Fault] = field(default_factory=list)

    def place(self, key: str) -> Place:
        """Place of a key path, or of the closest section around it that was written."""
        while key and key not in self.places:
            key = key.rpartition(".")[0]
        return self.places[key]


def config_error(faults: Sequence[Fault], main: str) -> ConfigError:
    """One error for all faults: those of the main file first, then other files, the command line last."""

    def order(fault: Fault) -> tuple[bool, bool, str, int, str]:
        file = fault.place.file
        return file == COMMAND_LINE, file != main, file, fault.place.line or 0, fault.key

    lines = [str(fault) for fault in sorted(faults, key=order)]
    if len(lines) == 1:
        return ConfigError(lines[0])
    return ConfigError("\n  ".join([f"{main}: {len(lines)} errors", *lines]))


def join_key(section: str, key: str | int) -> str:
    """Key path of a key in a section; the root section is empty."""
    return f"{section}.{key}" if section else str(key)


def keyed_source(values: Mapping[str, Any], file: str) -> Source:
    """Values by key path as one tree, all written in one place; a later key may lie inside an earlier one's value."""
    place = Place(file)
    source = Source({}, {"": place})
    for key, value in values.items():
        parts = key.split(".")
        places = dict.fromkeys([".".join(parts[:depth]) for depth in range(len(parts))], place)
        places |= dict.fromkeys(_keys_inside(value, key), place)
        tree = value
        for part in reversed(parts):
            tree = {part: tree}
        source = merge(source, Source(tree, places))
    return source


def _keys_inside(value: Any, key: str) -> Iterator[str]:
    """Key paths of a value and of everything in it."""
    yield key
    parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield from _keys_inside(part, join_key(key, name))


def merge(base: Source, over: Source) -> Source:
    """``over`` above ``base``: sections key by key, anything else replaced, and so a section whose ``kind`` changes."""
    places = dict(base.places)
    values = _merge_sections(base.values, over.values, "", places, over.places)
    kept = [fault for fault in base.faults if not fault.is_of_value or places.get(fault.key) == base.place(fault.key)]
    return Source(values, places, kept + over.faults)


def _merge_sections(
    base: dict[str, Any], over: dict[str, Any], section: str, places: dict[str, Place], over_places: dict[str, Place]
) -> dict[str, Any]:
    merged = dict(base)
    for name, value in over.items():
        key = join_key(section, name)
        old = base.get(name)
        if isinstance(old, dict) and isinstance(value, dict) and not _kind_changes(old, value):
            merged[name] = _merge_sections(old, value, key, places, over_places)
        else:
            merged[name] = value
            for inner in [inner for inner in places if inner.startswith(f"{key}.")]:
                del places[inner]
            places.update({inner: place for inner, place in over_places.items() if inner.startswith(f"{key}.")})
        places[key] = over_places[key]
    return merged


def _kind_changes(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return "kind" in old and "kind" in new and old["kind"] != new["kind"]

"""Config: typed, frozen, unknown keys refused; load_config: YAML + extends + overrides, every error with its line."""

import difflib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from recmoe.config_source import COMMAND_LINE, Fault, Place, Source, config_error, join_key, keyed_source, merge
from recmoe.config_yaml import display_name, read_file, read_overrides
from recmoe.plugins import ERROR as PLUGIN_ERROR
from recmoe.plugins import Plugins


class Config(BaseModel):
    """Base of every section of a config file."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def problems(self) -> Iterator[tuple[str, str]]:
        """What does not fit together although each value is valid, as (key path, message).

        The sections inside have been asked before, and had none.
        """
        return iter(())


C = TypeVar("C", bound=Config)


def load_config(
    cls: type[C], path: Path | str, overrides: Sequence[str] = (), *, changes: Mapping[str, Any] | None = None
) -> C:
    """A config from a YAML file, the files it extends, ``key.path=value`` overrides, and values of flags by key path.

    ``extends: [base.yaml, …]`` merges files section by section, a later one wins, the file itself last and the
    overrides after it; a section whose ``kind`` changes is replaced. ``${VAR}`` is an environment variable,
    ``${VAR:-text}`` with a default, ``${here}`` the folder of the file in which it is written.

    Raises:
        ConfigError: everything that is wrong, each with file and line (or "command line") and key path.
    """
    source = read_file(Path(path))
    if overrides:
        source = merge(source, read_overrides(overrides))
    if changes:
        source = merge(source, keyed_source(changes, COMMAND_LINE))
    return _validate(cls, source, main=display_name(Path(path)))


def config_from_dict(
    cls: type[C],
    values: Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
    source: str = "config",
    changes_from: str = "changes",
) -> C:
    """A config from a dictionary, such as the one ``dump_config`` made; ``source`` names it in errors.

    Args:
        overrides: ``key.path=value`` of a command line.
        changes: values by key path, as a program has them; ``changes_from`` names them in errors.

    Raises:
        ConfigError: everything that is wrong, each with its key path.
    """
    read = Source(dict(values), {"": Place(source)})
    if overrides:
        read = merge(read, read_overrides(overrides))
    if changes:
        read = merge(read, keyed_source(changes, changes_from))
    return _validate(cls, read, main=source)


def dump_config(config: Config) -> dict[str, Any]:
    """The resolved config, defaults included, as values that JSON and YAML can hold."""
    return config.model_dump(mode="json")


def all_problems(value: Any, key: str = "") -> list[tuple[str, str]]:
    """What ``problems()`` of a config and of every section in it yield, with full key paths.

    A section is asked only when the sections inside it have no problems, so it may rely on them.
    """
    inner: list[tuple[str | int, Any]]
    if isinstance(value, Config):
        inner = [(name, getattr(value, name)) for name in type(value).model_fields]
    elif isinstance(value, Mapping):
        inner = list(value.items())
    elif isinstance(value, list | tuple):
        inner = list(enumerate(value))
    else:
        return []
    found = [problem for name, part in inner for problem in all_problems(part, join_key(key, name))]
    if not found and isinstance(value, Config):
        found = [(join_key(key, path) if path else key, message) for path, message in value.problems()]
    return found


def _validate(cls: type[C], source: Source, *, main: str) -> C:
    faults = list(source.faults)
    config = None
    try:
        config = cls.model_validate(source.values)
    except ValidationError as error:
        known = {fault.key for fault in faults}
        found = _key_messages(cls, source.values, error.errors(include_url=False))
        faults += [Fault(source.place(key), key, message) for key, message in found if key not in known]
    if config is not None and not faults:
        faults += [Fault(source.place(key), key, message) for key, message in all_problems(config)]
    if config is None or faults:
        raise config_error(faults, main)
    return config


def _key_messages(cls: type[Config], values: dict[str, Any], errors: Sequence[ErrorDetails]) -> list[tuple[str, str]]:
    """Pydantic's errors by key path; what the members of a union say about one key is joined."""
    located = [_locate(cls, values, error) for error in errors]
    # An error inside one member of a union tells more than "not a number" from the member beside it.
    outdone = {location.union for location in located if location.union is not None and not location.is_of_type}
    messages: dict[str, list[str]] = {}
    for location in located:
        if not (location.is_of_type and location.union in outdone):
            messages.setdefault(location.key, []).append(location.message)
    return [(key, "; or ".join(dict.fromkeys(told))) for key, told in messages.items()]


@dataclass(frozen=True)
class _Location:
    """Where in the tree an error of pydantic lies, and what it says."""

    key: str
    message: str
    union: str | None = None
    """Key of the untagged union whose member said it."""
    is_of_type: bool = False
    """Whether it only says that the value is of another type."""


def _locate(cls: type[Config], values: Any, error: ErrorDetails) -> _Location:
    """Follow pydantic's ``loc``, dropping the names of union members, which are no keys (pydantic#7500)."""
    key, value, expected = "", values, _members(cls)
    union: str | None = None
    loc, kind = list(error["loc"]), error["type"]
    has_tag = False
    for depth, part in enumerate(loc):
        is_last = depth == len(loc) - 1
        expected = _chosen(expected, value)
        tagged = [member for member in expected if part in _tags(member)]
        if isinstance(value, dict) and value.get("kind") == part and tagged and not has_tag:
            expected, has_tag = tagged, True
            continue
        has_tag = False
        if isinstance(value, dict) and (part in value or (is_last and kind == "missing")):
            if kind == "extra_forbidden" and is_last:
                return _Location(join_key(key, part), _unknown_key(str(part), expected), union)
            key, value = join_key(key, part), value.get(part)
            expected = [inner for member in expected for inner in _inside(member, part)]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            key, value = join_key(key, part), value[part]
            expected = [inner for member in expected for inner in _inside(member, part)]
        elif part != "[key]":
            union = key
    if kind == PLUGIN_ERROR:
        return _Location(join_key(key, "kind"), error["msg"], union)
    tags = sorted({tag for member in expected for tag in _tags(member)})
    if kind == "union_tag_not_found":
        return _Location(join_key(key, "kind"), f"field required, one of {', '.join(map(repr, tags))}", union)
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return _Location(key, f"expected a section of keys, got {value!r}", union, is_of_type=True)
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if kind == "union_tag_invalid":
        close = difflib.get_close_matches(str(value.get("kind")), tags, n=1)
        return _Location(join_key(key, "kind"), message + (f", did you mean {close[0]!r}?" if close else ""), union)
    return _Location(key, message, union, is_of_type=kind.endswith("_type"))


def _unknown_key(name: str, expected: Sequence[Any]) -> str:
    names = sorted({field for member in expected if _is_config(member) for field in member.model_fields})
    close = difflib.get_close_matches(name, names, n=1)
    return f"unknown key, did you mean {close[0]}?" if close else f"unknown key, known here: {', '.join(names)}"


def _members(annotation: Any) -> list[Any]:
    """The types an annotation allows, unions taken apart."""
    origin = get_origin(annotation)
    if origin is Annotated:
        first, *metadata = get_args(annotation)
        return [*_members(first), *_plugins(metadata)]
    if origin in (Union, types.UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [annotation]


def _plugins(metadata: Sequence[Any]) -> list[Any]:
    """By what a union is open for kinds of other packages."""
    return [one for one in metadata if isinstance(one, Plugins)]


def _chosen(expected: list[Any], value: Any) -> list[Any]:
    """What a section can be: the plug-in that it names, where it names one."""
    named = [member.named_by(value) for member in expected if isinstance(member, Plugins)]
    return [cls for cls in named if cls is not None] or expected


def _inside(member: Any, part: str | int) -> list[Any]:
    """The types a member allows at one of its keys or positions."""
    if _is_config(member):
        field = member.model_fields.get(part)
        return [*_members(field.annotation), *_plugins(field.metadata)] if field is not None else []
    args = get_args(member)
    if get_origin(member) is tuple and isinstance(part, int) and args[-1] is not Ellipsis:
        return _members(args[part]) if part < len(args) else []
    if get_origin(member) in (dict, Mapping):
        return _members(args[1])
    return _members(args[0]) if args else []


def _tags(member: Any) -> tuple[Any, ...]:
    """Values of ``kind`` by which a union knows a config."""
    if not _is_config(member) or "kind" not in member.model_fields:
        return ()
    annotation = member.model_fields["kind"].annotation
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _is_config(member: Any) -> bool:
    return isinstance(member, type) and issubclass(member, Config)

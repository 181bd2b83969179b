"""Plug-ins: gates, experts, architectures and trunks of other packages, found through Python entry points.

A package says in its ``pyproject.toml`` what it brings, under a name with a dot in it, which is the ``kind``::

    [project.entry-points."recmoe.gates"]
    "mypackage.my_gate" = "mypackage.gates:MyGateConfig"
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler, ValidatorFunctionWrapHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

GATES = "recmoe.gates"
EXPERTS = "recmoe.experts"
ARCHITECTURES = "recmoe.architectures"
TRUNKS = "recmoe.trunks"

ERROR = "plugin"
"""Type of the error that says why a plug-in cannot be had."""


@dataclass(frozen=True)
class Plugins:
    """In the annotation of a union of kinds: a kind with a dot in its name is one of a package.

    The members of the union are what they were, for pydantic, the type checker and the reader::

        GateConfig = Annotated[OneGateConfig | OtherGateConfig, Field(discriminator="kind"), Plugins(GATES)]
    """

    group: str
    """Of entry points."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # What is dumped is the config that is there, which need not be a member of the union.
        return core_schema.no_info_wrap_validator_function(
            self._validate, handler(source), serialization=core_schema.simple_ser_schema("any")
        )

    def find(self, kind: str) -> type[BaseModel]:
        """The config class of a kind.

        Raises:
            PydanticCustomError: no package brings it, or what it brings cannot be used.
        """
        found = {entry.name: entry for entry in entry_points(group=self.group)}
        if kind not in found:
            there = ", ".join(f"{name} ({_package(entry)})" for name, entry in sorted(found.items())) or "none"
            close = difflib.get_close_matches(kind, found, n=1)
            remedy = f"did you mean {close[0]!r}?" if close else "install its package, or correct the name"
            raise _error(f"no installed package brings {kind!r} (entry points of {self.group}: {there}); {remedy}")
        entry = found[kind]
        try:
            cls = entry.load()
        except Exception as error:
            raise _error(
                f"{kind} of {_package(entry)} cannot be loaded: {type(error).__name__}: {error}; mend that package"
            ) from error
        fields = cls.model_fields if isinstance(cls, type) and issubclass(cls, BaseModel) else {}
        if "kind" not in fields or fields["kind"].default != kind:
            raise _error(
                f"{entry.value} of {_package(entry)} is no config class with kind: Literal[{kind!r}] = {kind!r}; mend "
                "that package"
            )
        result: type[BaseModel] = cls
        return result

    def named_by(self, value: Any) -> type[BaseModel] | None:
        """The config class that a section names; None where it names none that can be had."""
        kind = _dotted(value.get("kind")) if isinstance(value, Mapping) else None
        if kind is None:
            return None
        try:
            return self.find(kind)
        except PydanticCustomError:
            return None

    def _validate(self, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        if isinstance(value, BaseModel) and _dotted(getattr(value, "kind", None)):
            return value
        kind = _dotted(value.get("kind")) if isinstance(value, Mapping) else None
        return handler(value) if kind is None else self.find(kind).model_validate(value)


def packages_of(config: Any) -> dict[str, str]:
    """Packages whose plug-ins a config names, and their installed versions.

    Args:
        config: as JSON would hold it.
    """
    kinds = set(_dotted_kinds(config))
    found: dict[str, str] = {}
    for group in (GATES, EXPERTS, ARCHITECTURES, TRUNKS) if kinds else ():
        for entry in entry_points(group=group):
            if entry.name in kinds and entry.dist is not None:
                found[entry.dist.name] = entry.dist.version
    return found


def installed_version(package: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _dotted_kinds(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        kind = _dotted(value.get("kind"))
        if kind is not None:
            yield kind
        for inner in value.values():
            yield from _dotted_kinds(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _dotted_kinds(inner)


def _dotted(kind: Any) -> str | None:
    return kind if isinstance(kind, str) and "." in kind else None


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.value


def _error(message: str) -> PydanticCustomError:
    return PydanticCustomError(ERROR, "{message}", {"message": message})

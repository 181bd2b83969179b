"""Subject: the gate, expert, architecture or trunk that is checked, by its config."""

import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from recmoe.architectures.seam import ArchitectureKind
from recmoe.architectures.trunks.trunk import TrunkKind
from recmoe.config import Config, config_from_dict
from recmoe.errors import ConfigError

Role = Literal["gate", "expert", "architecture", "trunk"]
Loop = Callable[..., Any]
"""A naive loop, one row at a time: see ``recmoe.conformance.loop``."""


@dataclass(frozen=True)
class Subject:
    """What is checked."""

    config: Any
    """Of a class with ``build`` or ``assemble``."""
    loop: Loop | None = None
    """What it must equal."""

    @property
    def role(self) -> Role:
        """What a config of this class builds."""
        role = role_of(type(self.config))
        assert role is not None, "subject_of lets no other class in"
        return role


def role_of(cls: type) -> Role | None:
    """What configs of a class build, by what their ``build`` takes; None where it is nothing that is known."""
    if issubclass(cls, ArchitectureKind):
        return "architecture"
    if issubclass(cls, TrunkKind):
        return "trunk"
    build = getattr(cls, "build", None)
    taken = inspect.signature(build).parameters if callable(build) else {}
    if "num_experts" in taken:
        return "gate"
    return "expert" if "reads" in taken else None


def subject_of(cls: Any, *, overrides: Sequence[str] = (), loop: Loop | None = None) -> Subject:
    """The config of a class with its defaults, to be checked.

    Args:
        cls: of a gate's, an expert's or an architecture's config.
        overrides: ``key=value`` for fields without a default, or to check another form.
        loop: what it must equal.

    Raises:
        ConfigError: it is no such class, or its defaults and the overrides do not make a config.
    """
    if not (isinstance(cls, type) and issubclass(cls, Config) and role_of(cls)):
        raise ConfigError(
            f"{getattr(cls, '__name__', cls)} is no config class of a gate, an expert or an architecture: a gate's has "
            "build(in_features, num_experts), an expert's build(reads, in_features, hidden, dropout, form), an "
            "architecture's extends recmoe.architectures.seam.ArchitectureKind, and a trunk's "
            "recmoe.architectures.trunks.trunk.TrunkKind"
        )
    return Subject(config_from_dict(cls, {}, overrides=overrides, source=cls.__name__), loop)


def find(place: str) -> Any:
    """What MODULE:NAME stands for.

    Raises:
        ConfigError: it is written in another way, the module cannot be imported, or it has no such name.
    """
    module, _, name = place.partition(":")
    if not (module and name):
        raise ConfigError(f"{place}: give MODULE:NAME, such as mypackage.gates:MyGateConfig")
    try:
        found = importlib.import_module(module)
    except Exception as error:
        raise ConfigError(f"{place}: {module} cannot be imported: {type(error).__name__}: {error}") from error
    if not hasattr(found, name):
        raise ConfigError(f"{place}: {module} has no {name}")
    return getattr(found, name)

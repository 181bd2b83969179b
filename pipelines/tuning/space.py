"""Space: which keys of a config are searched, and over which values."""

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from pipelines.tuning.dimension import Choices, Dimension, Range, holds
from pipelines.tuning.starting_space import starting_space
from recmoe.config import Config, config_from_dict, dump_config
from recmoe.config_source import Fault, config_error
from recmoe.config_yaml import display_name, read_file
from recmoe.errors import ConfigError
from recmoe.experiment import ExperimentConfig

STARTING = "default"
"""Key of a space file: whether its keys are added to those that are searched without a file."""

Values = Mapping[str, Any]
"""What a trial changes: values by key path."""


class Space:
    """The dimensions of a search by key path.

    Some keys decide which others there are: ``model.architecture.kind`` whether there is a
    ``model.architecture.num_experts``. A trial has those keys that its own choices leave in the config.

    Args:
        dimensions: by key path.
        places: where each was written, for errors; the starting space has none.
    """

    def __init__(self, dimensions: Mapping[str, Dimension], places: Mapping[str, str] | None = None) -> None:
        self.dimensions = dict(sorted(dimensions.items(), key=lambda item: _rank(*item)))
        self._places = places or {}

    def draw(self, base: ExperimentConfig, value_of: Callable[[str, Dimension, Any], Any]) -> dict[str, Any]:
        """Values for the keys of one trial.

        Args:
            base: the config that is tuned.
            value_of: called with key, dimension and the config's own value, in an order in which each key is there
                when it is asked for.
        """
        values: dict[str, Any] = {}
        config = base
        for key, dimension in self.dimensions.items():
            found, current = look_up(config, key)
            if found:
                values[key] = value_of(key, dimension, current)
                if _is_structural(key, dimension):
                    config = changed(base, values)
        return values

    def own_values(self, base: ExperimentConfig) -> dict[str, Any]:
        """The config's own values of the keys that are searched."""
        return self.draw(base, lambda _key, _dimension, current: current)

    def changes(self, base: ExperimentConfig, values: Values) -> dict[str, Any]:
        """Those of a trial's values that the config has not, or would not have once the others are in it."""
        changes: dict[str, Any] = {}
        config = base
        for key in sorted(values, key=list(self.dimensions).index):
            if look_up(config, key) != (True, values[key]):
                changes[key] = values[key]
                if _is_structural(key, self.dimensions[key]):
                    config = changed(base, changes)
        return changes

    def names(self) -> dict[str, str]:
        """A short name for each key: as much of its end as no other key has."""
        names = {}
        for key in self.dimensions:
            parts = key.split(".")
            ends = [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]
            others = [other for other in self.dimensions if other != key]
            names[key] = next(end for end in ends if not any(f".{other}".endswith(f".{end}") for other in others))
        return names

    def holds(self, values: Values) -> bool:
        """Whether a search could draw these values."""
        return all(key in self.dimensions and holds(self.dimensions[key], value) for key, value in values.items())

    def check(self, base: ExperimentConfig) -> None:
        """Ask the config about every key, each with its ends or choices.

        Raises:
            ConfigError: a key that no trial has, or a value that the config refuses; the first one, with its place.
        """
        variants = list(self._variants(base))
        for key, dimension in self.dimensions.items():
            place = self._places.get(key, "search space")
            having = [variant for variant in variants if look_up(changed(base, variant), key)[0]]
            if not having and dimension.probes:
                # The config says best what is wrong with the key.
                changed(base, {key: dimension.probes[0]}, source=place)
                raise ConfigError(f"{place}  {key}: the config has no such key; write it into the config first")
            for variant, probe in product(having, dimension.probes):
                others = {other: value for other, value in variant.items() if other != key}
                changed(base, {**others, key: probe}, source=place)

    def _variants(self, base: ExperimentConfig) -> Iterator[dict[str, Any]]:
        """Every combination of the choices that decide which keys there are."""
        structural = {key: one for key, one in self.dimensions.items() if _is_structural(key, one)}
        for key, one in structural.items():
            for probe in one.probes:
                changed(base, {key: probe}, source=self._places.get(key, "search space"))
        for probes in product(*(one.probes for one in structural.values())):
            yield dict(zip(structural, probes, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Plain values, as a space file holds them."""
        return {key: dump_config(dimension) for key, dimension in self.dimensions.items()}


def read_space(path: Path, base: ExperimentConfig) -> Space:
    """The space that a YAML file describes: ``{low, high, log}`` or ``{choices}`` by key path, null to leave one out.

    With ``default: true`` in it, it is added to the starting space.

    Raises:
        ConfigError: what is wrong with the file, with its line.
    """
    source = read_file(path)
    if source.faults:
        raise config_error(source.faults, display_name(path))
    entries = dict(source.values)
    is_added = entries.pop(STARTING, False)
    if not isinstance(is_added, bool):
        message = f"{is_added!r} is neither true nor false"
        raise config_error([Fault(source.place(STARTING), STARTING, message)], display_name(path))
    dimensions = starting_space(base) if is_added else {}
    places = {}
    for key, entry in entries.items():
        places[key] = str(source.place(key))
        dimensions.pop(key, None)
        if entry is not None:
            dimensions[key] = _dimension(key, entry, places[key])
    if not dimensions:
        raise ConfigError(f"{display_name(path)}  no key is searched; give one, such as {_EXAMPLE}")
    return Space(dimensions, places)


_EXAMPLE = "'training.dense_optimizer.lr: {low: 1e-4, high: 1e-2, log: true}'"


def _dimension(key: str, entry: Any, place: str) -> Dimension:
    if not isinstance(entry, dict):
        raise ConfigError(f"{place}  {key}: {entry!r} is no range; write it like {_EXAMPLE}, or {{choices: [1, 2]}}")
    kind: type[Range] | type[Choices] = Choices if "choices" in entry else Range
    return config_from_dict(kind, entry, source=f"{place}  {key}")


def show_value(value: Any) -> str:
    """A value for people: of a drawn number three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def changed(base: ExperimentConfig, values: Values, *, source: str = "search space") -> ExperimentConfig:
    """The config with other values at some keys; a section whose kind changes starts from its defaults.

    Raises:
        ConfigError: it refuses them; ``source`` says where they come from.
    """
    return config_from_dict(ExperimentConfig, dump_config(base), changes=values, changes_from=source)


def look_up(config: Config, key: str) -> tuple[bool, Any]:
    """Whether a config has a key, and the value there as plain data."""
    value: Any = dump_config(config)
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return False, None
        value = value[part]
    return True, value


def _is_structural(key: str, dimension: Dimension) -> bool:
    """Whether its value decides which other keys there are."""
    is_section = isinstance(dimension, Choices) and any(isinstance(choice, dict) for choice in dimension.choices)
    return is_section or key.rpartition(".")[2] == "kind"


def _rank(key: str, dimension: Dimension) -> tuple[bool, int]:
    """Keys that decide about others come before them, outer sections before inner ones."""
    return not _is_structural(key, dimension), key.count(".")

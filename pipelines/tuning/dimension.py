"""Range and Choices: the values that one key of a config may take in a search."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

from optuna import Trial
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import Field

from recmoe.config import Config

Number = Annotated[int | float, Field(allow_inf_nan=False)]


class Range(Config):
    """All numbers between two ends, both included."""

    low: Number
    """Smallest value."""
    high: Number
    """Largest value."""
    log: bool = False
    """Whether factors count and not differences: for learning rates."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """An empty range, or a logarithm of nothing."""
        if self.high <= self.low:
            yield "high", f"{self.high:g} is not above low, {self.low:g}"
        if self.log and self.low <= 0:
            yield "low", f"{self.low:g} has no logarithm; give a number above 0, or leave log out"

    @property
    def probes(self) -> list[Any]:
        """Values that a config must accept."""
        return [self.low, self.high]

    def distribution(self, current: Any) -> BaseDistribution:
        """As Optuna draws it; whole numbers where both ends are, unless the config now holds another number."""
        if isinstance(self.low, int) and isinstance(self.high, int) and not isinstance(current, float):
            return IntDistribution(self.low, self.high, log=self.log)
        return FloatDistribution(float(self.low), float(self.high), log=self.log)

    def encode(self, value: Any) -> Any:
        """A value as Optuna keeps it."""
        return value

    def decode(self, stored: Any) -> Any:
        """The inverse of ``encode``."""
        return stored


class Choices(Config):
    """Some values, of any type, sections of a config included."""

    choices: Annotated[list[Any], Field(min_length=1)]
    """The values."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """A value given twice."""
        texts = [self.encode(choice) for choice in self.choices]
        for text in sorted({text for text in texts if texts.count(text) > 1}):
            yield "choices", f"{text} is given twice"

    @property
    def probes(self) -> list[Any]:
        """Values that a config must accept."""
        return self.choices

    def distribution(self, current: Any) -> BaseDistribution:  # noqa: ARG002 - as a range has it
        """As Optuna draws it."""
        return CategoricalDistribution([self.encode(choice) for choice in self.choices])

    def encode(self, value: Any) -> str:
        """A value as Optuna keeps it: it knows no lists and no sections."""
        return json.dumps(value)

    def decode(self, stored: str) -> Any:
        """The inverse of ``encode``."""
        return json.loads(stored)


Dimension = Range | Choices


def suggest(trial: Trial, key: str, dimension: Dimension, current: Any) -> Any:
    """A value for a key, drawn by the sampler of the trial's study."""
    distribution = dimension.distribution(current)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(key, distribution.low, distribution.high, log=distribution.log)
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(key, distribution.low, distribution.high, log=distribution.log)
    assert isinstance(distribution, CategoricalDistribution)
    return dimension.decode(trial.suggest_categorical(key, distribution.choices))


def holds(dimension: Dimension, value: Any) -> bool:
    """Whether a search could draw a value."""
    if isinstance(dimension, Choices):
        return dimension.encode(value) in map(dimension.encode, dimension.choices)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and dimension.low <= value <= dimension.high

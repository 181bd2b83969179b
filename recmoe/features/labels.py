"""Label columns of a log: what they hold, which values count as 1, and what they imply of each other."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import StrictBool, StrictFloat, StrictInt, model_validator

from recmoe.config import Config

LabelValue = StrictBool | StrictInt | StrictFloat | str


class Positive(Config):
    """Which values of a label column count as 1; all others count as 0, and a missing one stays missing.

    A config writes one value, several, or a threshold::

        positive: Y        positive: [cart, buy]        positive: {at_least: 4}        positive: {above: 0}
    """

    values: tuple[LabelValue, ...] = ()
    """Values that count as 1, as the log writes them."""
    at_least: float | None = None
    """The smallest number that counts as 1."""
    above: float | None = None
    """Numbers above this one count as 1."""

    @model_validator(mode="before")
    @classmethod
    def _from_values(cls, given: Any) -> Any:
        if isinstance(given, dict | Positive):
            return given
        return {"values": given if isinstance(given, list | tuple) else [given]}

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is missing or given twice, as (key path, message)."""
        if (bool(self.values), self.at_least is not None, self.above is not None).count(True) != 1:
            yield "", "give the values that count as 1, at_least or above, and only one of them"
        for name in ("at_least", "above"):
            threshold = getattr(self, name)
            if threshold is not None and not math.isfinite(threshold):
                yield name, f"a threshold must be a finite number, got {threshold}"

    def __str__(self) -> str:
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        if self.above is not None:
            return f"> {self.above:g}"
        return "is " + " or ".join(map(str, self.values))


@dataclass(frozen=True)
class LabelColumn:
    """One label, as the tasks that use it declare it: a column, or some of its values."""

    column: str
    is_binary: bool
    """Only 0, 1 and null are allowed, unless ``positive`` says what counts as 1."""
    implies: str | None = None
    """Name of the binary label that must be 1 wherever this one is positive: a conversion needs its click."""
    positive: Positive | None = None
    """Which values count as 1; None where the column holds the label itself."""

    @property
    def name(self) -> str:
        """Tells apart the labels that are made of one column: ``click``, ``rating >= 4``."""
        return self.column if self.positive is None else f"{self.column} {self.positive}"

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads; as long as labels are columns it is what earlier versions wrote."""
        document = asdict(self)
        positive = document.pop("positive")
        return document if positive is None else document | {"positive": positive.model_dump(mode="json")}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "LabelColumn":
        """A label as an encoder keeps it."""
        positive = document.get("positive")
        return cls(**document | {"positive": None if positive is None else Positive.model_validate(positive)})

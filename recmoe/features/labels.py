"""Label columns of a log: what they hold, which values count as 1, and what they imply of each other."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import StrictBool, StrictFloat, StrictInt, TypeAdapter, model_validator

from recmoe.config import Config
from recmoe.json_document import checked

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


class Levels(Config):
    """The values of a label column that count as its levels, each with the number that it stands for.

    A config writes numbers that stand for themselves, or values with their numbers::

        levels: [1, 2, 3, 4, 5]        levels: {view: 0, cart: 2, buy: 10}
    """

    pairs: tuple[tuple[LabelValue, float], ...]
    """(value as the log writes it, number), in order."""

    @model_validator(mode="before")
    @classmethod
    def _from_values(cls, given: Any) -> Any:
        if isinstance(given, Levels) or (isinstance(given, dict) and set(given) == {"pairs"}):
            return given
        if isinstance(given, dict):
            return {"pairs": list(given.items())}
        return {"pairs": [(number, number) for number in given]} if isinstance(given, list | tuple) else given

    @property
    def numbers(self) -> tuple[float, ...]:
        """What the levels stand for."""
        return tuple(number for _, number in self.pairs)

    def problems(self) -> Iterator[tuple[str, str]]:
        """What does not fit together, as (key path, message)."""
        if len(self.pairs) < 2:
            yield "", f"give two levels or more, got {len(self.pairs)}"
        for number in self.numbers:
            if not math.isfinite(number):
                yield "", f"a level must stand for a finite number, got {number}"
            if self.numbers.count(number) > 1:
                yield "", f"two levels stand for {number:g}; give them different numbers, or make them one"
                return

    def __str__(self) -> str:
        return ", ".join(f"{value}" if value == number else f"{value}: {number:g}" for value, number in self.pairs)


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
    levels: Levels | None = None
    """The only values that are allowed, and what they stand for."""
    is_amount: bool = False
    """Whether negative values are refused."""
    use: Literal["label", "position", "device"] = "label"
    """What it is for: a label of tasks, or what only the log knows of where a row was shown, and no request has."""

    @property
    def name(self) -> str:
        """Tells apart the labels that are made of one column: ``click``, ``rating >= 4``, ``rating of 1, 2, 3``."""
        if self.levels is not None:
            return f"{self.column} of {self.levels}"
        return self.column if self.positive is None else f"{self.column} {self.positive}"

    @property
    def needed_by(self) -> str:
        """What lacks it where the column is missing."""
        return "a task, as its label" if self.use == "label" else f"model.position, as the {self.use}"

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads; as long as labels are columns it is what earlier versions wrote."""
        document = asdict(self)
        for name in ("positive", "levels"):
            value = document.pop(name)
            if value is not None:
                document[name] = value.model_dump(mode="json")
        if not document["is_amount"]:
            del document["is_amount"]
        if document["use"] == "label":
            del document["use"]
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "LabelColumn":
        """A label as an encoder keeps it; ValueError where it is none."""
        read = dict(document)
        for name, kind in (("positive", Positive), ("levels", Levels)):
            if read.get(name) is not None:
                read[name] = kind.model_validate(read[name])
        return checked(_LABEL, read)


_LABEL = TypeAdapter(LabelColumn)

"""Ranking and what else a server answers, as types.

A server that is newer may say more: fields that are not known here are passed over.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar

from recmoe.client.explanation import Explanation, FeatureAttribution, GateWeights, TaskExplanation

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RankedItem:
    """One candidate in its place."""

    item_id: Any
    """As the request gave it; the candidate's position where it gave none."""
    score: float | None
    """None where the formula gave no finite number; such items stand last."""
    tasks: dict[str, float]
    """Predictions by task: probabilities, or values in the unit of the label."""
    explanation: Explanation | None = None
    """What made the predictions; None where it was not asked for."""

    @classmethod
    def read(cls, item: Any) -> "RankedItem":
        """From the JSON of an answer; ValueError, TypeError or LookupError where it is none."""
        ranked, explanation = (item["item_id"], item["score"], item["tasks"]), item.get("explanation")
        return cls(*ranked, None if explanation is None else _explanation(explanation))


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which model ranked."""

    name: str
    version: str | None
    """Version in the registry; None for a bundle from a folder."""
    digest: str
    """sha256 over the bundle's files."""


@dataclass(frozen=True, slots=True)
class ScoreInfo:
    """Which formula ordered the items."""

    name: str
    formula: str


@dataclass(frozen=True, slots=True)
class FeatureWarning:
    """Values of one feature that the model did not know, a field that it does not know, or who ranked and why."""

    feature: str
    code: str
    """``missing``, ``unknown``, ``unknown_field``, ``not_in_store``, ``store_away`` or ``not_finite``; or
    ``lighter_model``: a lighter version ranked, as the deadline left no time for the other one."""
    count: int
    column: str | None = None
    """The field of the request, where it is not called like the feature."""
    hint: str | None = None
    """What an ignored field may be meant to be."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Candidates in the order to show them."""

    request_id: str | None
    model: ModelInfo
    score: ScoreInfo
    items: list[RankedItem]
    warnings: list[FeatureWarning]
    timing_ms: dict[str, float]
    """Milliseconds in the server by stage; ``total`` is all of them."""

    @classmethod
    def read(cls, document: Any) -> "Ranking":
        """From the JSON of an answer; ValueError where it is none."""
        return _read(
            cls,
            document,
            model=lambda model: _read(ModelInfo, model),
            score=lambda score: _read(ScoreInfo, score),
            items=lambda items: [RankedItem.read(item) for item in items],
            warnings=lambda warnings: [_read(FeatureWarning, warning) for warning in warnings],
        )


@dataclass(frozen=True, slots=True)
class ServedTask:
    """A task of the served model."""

    name: str
    kind: str
    space: str
    """Rows it is about: ``all``, or those whose label of this name is 1."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A version that an alias names and that is not used."""

    role: str
    version: str
    reason: str
    at: str
    """UTC, ISO 8601."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model in use, and what a request may hold."""

    name: str
    version: str | None
    digest: str
    created_at: str
    tasks: list[ServedTask]
    scores: dict[str, str]
    """Formulas by name."""
    default_score: str
    columns: dict[str, dict[str, str]]
    """Types of the columns by name, for ``user``, ``context`` and ``item``."""
    role: str = "champion"
    """``champion``: it answers; ``challenger``: it answers a share of the users; ``shadow``: it is only compared;
    ``light``: it answers what the others would answer too late."""
    refused: list[Refusal] = field(default_factory=list)
    """Versions that an alias names and that are not used."""
    warnings: list[str] = field(default_factory=list)
    """Tasks whose mean prediction is out of its band, of the champion."""

    @classmethod
    def read(cls, document: Any) -> "ServedModel":
        """From the JSON of an answer; ValueError where it is none."""
        return _read(
            cls,
            document,
            tasks=lambda tasks: [_read(ServedTask, task) for task in tasks],
            refused=lambda refused: [_read(Refusal, one) for one in refused],
        )


@dataclass(frozen=True, slots=True)
class Health:
    """What a server says about itself; true where all is well."""

    is_ok: bool
    detail: str
    """Why not, or what it says."""

    def __bool__(self) -> bool:
        return self.is_ok


def _explanation(document: Any) -> Explanation:
    def task(document: Any) -> TaskExplanation:
        return _read(TaskExplanation, document, features=lambda all_: [_read(FeatureAttribution, one) for one in all_])

    return _read(
        Explanation,
        document,
        tasks=lambda tasks: {name: task(tasks[name]) for name in tasks},
        gates=lambda gates: [_read(GateWeights, gate) for gate in gates],
    )


def _read(kind: type[T], document: Any, **readers: Any) -> T:
    """An object of a type from its known fields; ValueError with the field that is missing or of another shape."""
    if not isinstance(document, Mapping):
        raise ValueError(f"expected an object, found {type(document).__name__}")
    values: dict[str, Any] = {}
    for one in fields(kind):  # type: ignore[arg-type]
        if one.name not in document:
            if one.default is MISSING and one.default_factory is MISSING:
                raise ValueError(f"field {one.name} is missing")
            continue
        value = document[one.name]
        try:
            values[one.name] = readers[one.name](value) if one.name in readers else value
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"field {one.name}: {error}") from error
    return kind(**values)

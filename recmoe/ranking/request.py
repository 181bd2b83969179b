"""RankRequest and RankResponse: what a product sends and what it gets back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, JsonValue, PositiveInt, StrictBool, ValidationError, field_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from recmoe.client.explanation import Explanation
from recmoe.errors import RequestError
from recmoe.ranking.document import document_of
from recmoe.ranking.score import unknown_name
from recmoe.ranking.texts import short, shown

Name = Annotated[str, Field(max_length=1000)]
Row = dict[str, Any]
Columns = dict[str, list[Any]]

MAX_FIELDS = 10_000
"""Fields of a user, of a context and columns of candidates; to make an object of more takes a while."""

_CANDIDATES_SCHEMA: JsonDict = {
    "anyOf": [
        {"type": "array", "items": {"type": "object"}, "title": "one object per candidate"},
        {"type": "object", "additionalProperties": {"type": "array"}, "title": "one list per column"},
    ]
}


class RankOptions(BaseModel):
    """A request but for its candidates."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    request_id: Name | None = None
    """Comes back in the response, for logs."""
    user: Row = Field(default_factory=dict)
    """Columns of the user side, by column name of the log."""
    context: Row = Field(default_factory=dict)
    """Columns of the context side."""
    tasks: tuple[Name, ...] | None = Field(default=None, max_length=1000, fail_fast=True)
    """Tasks whose predictions are wanted in the response; all by default."""
    score: Name | None = None
    """Name of the score to order by; the ranking config's default by default."""
    top_k: PositiveInt | None = None
    """Items to return, the best ones; all by default."""
    explain: StrictBool = False
    """Whether each item that is returned comes with an explanation: what moved its predictions, and how gates weighted
    experts."""
    top_features: Annotated[int, Field(ge=1, le=100)] = 5
    """Features that an explanation names for each task, those that moved its prediction most."""

    @classmethod
    def parse(cls, document: bytes | str | Mapping[str, Any]) -> Self:
        """Read a request from JSON or from what JSON became; RequestError with the field at fault."""
        document = document_of(document)
        for name in document:
            if name not in cls.model_fields:
                raise RequestError(short(str(name)), unknown_name("field", str(name), list(cls.model_fields)))
        for name, value in document.items():
            if isinstance(value, dict) and len(value) > MAX_FIELDS:
                raise RequestError(
                    name, f"has {len(value)} fields, at most {MAX_FIELDS} are read; leave out the others"
                )
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise _request_error(error) from error


class RankRequest(RankOptions):
    """One user in one context, and the candidates to order for them.

    Example::

        {"user": {"user_id": "u7", "country": "CH"},
         "context": {"hour": 18},
         "candidates": [{"item_id": "a", "price": 9.5}, {"item_id": "b", "price": null}],
         "top_k": 1}

    Candidates may also come by column: ``{"item_id": ["a", "b"], "price": [9.5, null]}``.
    """

    candidates: list[Row] | Columns = Field(json_schema_extra=_CANDIDATES_SCHEMA)
    """Columns of the item side: one object per candidate, or one list per column."""

    @field_validator("candidates", mode="wrap")
    @classmethod
    def _one_of_two_shapes(cls, value: object, _handler: object) -> list[Row] | Columns:
        if isinstance(value, list):
            for index, row in enumerate(value):
                if not isinstance(row, dict):
                    raise PydanticCustomError(
                        "candidate", "expected an object, found {found}", {"found": shown(row), "at": f"[{index}]"}
                    )
            return value
        if isinstance(value, dict):
            return _equal_columns(value)
        raise PydanticCustomError(
            "candidates", "expected a list of objects or an object of lists, found {found}", {"found": shown(value)}
        )

    @property
    def num_candidates(self) -> int:
        if isinstance(self.candidates, list):
            return len(self.candidates)
        return len(next(iter(self.candidates.values()), []))


@dataclass(frozen=True)
class ColumnRequest:
    """One user in one context, and the candidates to order for them, who are Arrow columns already."""

    options: RankOptions
    candidates: Mapping[str, pa.Array]
    """Columns of the item side, of C values each."""
    num_candidates: int


def check_num_candidates(num_candidates: int, max_candidates: int) -> None:
    """RequestError where a request has no candidates or too many."""
    if num_candidates == 0:
        raise RequestError("candidates", "there are none; give at least one")
    if num_candidates > max_candidates:
        raise RequestError(
            "candidates",
            f"{num_candidates} given, at most {max_candidates} are ranked in one request; "
            "send the most promising ones, or raise ranking.max_candidates in the config",
        )


@dataclass(slots=True)
class RankedItem:
    """One candidate in its place. There are many of them, so they are not validated one by one."""

    item_id: JsonValue
    """Value of the item column as the request gave it; the candidate's position where it gave none."""
    score: float | None
    """None where the formula gave no finite number; such items stand last."""
    tasks: dict[str, float]
    """Predictions by task: probabilities, or values in the unit of the label."""
    explanation: Annotated[Explanation | None, Field(exclude_if=lambda explanation: explanation is None)] = None
    """What made the predictions; left out where the request does not ask for it."""


class ModelInfo(BaseModel):
    """Which model ranked."""

    name: str
    version: str | None
    """Version in the registry; None for a bundle from a folder."""
    digest: str
    """sha256 over the bundle's files."""


class ScoreInfo(BaseModel):
    """Which formula ordered the items."""

    name: str
    formula: str


class FeatureWarning(BaseModel):
    """Values of one feature that the model did not know, a field that it does not know, or who ranked and why."""

    feature: str
    """Name of the feature, of the ignored field, or the formula; ``deadline`` with ``lighter_model``."""
    column: str | None = Field(default=None, exclude_if=lambda column: column is None)
    """The field of a request that gives the feature; left out where it is called like the feature."""
    code: str
    """``missing``: not given or null; ``unknown``: an id that training has not seen; ``unknown_field``: a field that
    the model does not know, which is ignored; ``not_in_store``: an item or user whose columns the server does not have;
    ``store_away``: one whose columns it could not look up; ``not_finite``: a score that is no number;
    ``lighter_model``: a lighter version ranked, as the deadline left no time for the other one."""
    count: int
    """Values; at most 1 per request on the user and context sides, unless it is a list."""
    hint: str | None = Field(default=None, exclude_if=lambda hint: hint is None)
    """What an ignored field may be meant to be; left out where there is no such name."""


class RankResponse(BaseModel):
    """Candidates in the order to show them."""

    request_id: str | None
    model: ModelInfo
    score: ScoreInfo
    items: list[RankedItem]
    warnings: list[FeatureWarning]
    timing_ms: dict[str, float]
    """Milliseconds by stage: ``decode`` JSON to columns, ``features`` encoding, ``model`` look-up and forward,
    ``score`` formula, sorting and the items, ``explain``, ``total``. Requests ranked together share theirs. With an
    explanation, ``queue`` is how long it waited for its turn."""


def _equal_columns(columns: dict[Any, Any]) -> Columns:
    """Candidates by column, once all columns are lists of one length."""
    first_name, first = None, []
    for name, values in columns.items():
        if not isinstance(values, list):
            raise PydanticCustomError(
                "column", "expected a list, found {found}", {"found": shown(values), "at": f".{short(name)}"}
            )
        if first_name is None:
            first_name, first = name, values
        elif len(values) != len(first):
            raise PydanticCustomError(
                "column",
                "has {count} values, {first_name} has {first_count}; give one per candidate",
                {
                    "count": len(values),
                    "first_name": short(first_name),
                    "first_count": len(first),
                    "at": f".{short(name)}",
                },
            )
    return columns


def _request_error(error: ValidationError) -> RequestError:
    """The first thing wrong with a request, by the path of its field."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) + first.get("ctx", {}).get("at", "")
    if first["type"] == "missing":
        return RequestError(field, "field required")
    message = first["msg"][:1].lower() + first["msg"][1:]
    if first["type"] not in ("candidate", "candidates", "column"):
        message += f", found {shown(first['input'])}"
    return RequestError(field, message)

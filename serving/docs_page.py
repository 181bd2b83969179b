"""docs_page: what a request to the served model holds, as a page that needs nothing from elsewhere."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from jinja2 import Environment, PackageLoader, StrictUndefined

from recmoe import __version__
from recmoe.features.columns import is_list_type
from recmoe.features.layout import Side
from recmoe.ranking.columns import DEFAULT_ITEM
from recmoe.ranking.ranker import Ranker
from recmoe.ranking.values import RequestColumn
from serving.description import describe

_PARTS: dict[Side, str] = {"user": "user", "context": "context", "item": "candidates"}
"""Field of the request by side."""


def docs_page(ranker: Ranker | None, *, absent: str) -> str:
    """The page as HTML.

    Args:
        ranker: the model; None while there is none.
        absent: why there is none.
    """
    environment = Environment(loader=PackageLoader("serving", ""), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("docs.html")
    if ranker is None:
        return page.render(model=None, absent=absent, software=__version__)
    parts = {
        part: [
            {"name": name, "words": _words(column), "example": _json(_example(column))}
            for name, column in ranker.request_columns[side].items()
        ]
        for side, part in _PARTS.items()
    }
    return page.render(
        model=describe(ranker),
        software=__version__,
        parts=parts,
        example=json.dumps(example_request(ranker), ensure_ascii=False, indent=2),
        limits=ranker.config,
    )


def example_request(ranker: Ranker) -> dict[str, Any]:
    """A request with every field, which the ranker can answer; values are made up, not taken from the log."""
    rows = {side: _row(columns) for side, columns in ranker.request_columns.items()}
    item = ranker.bundle.encoder.schema.item
    if item is None:
        rows["item"].setdefault(DEFAULT_ITEM, "a")
    return {"user": rows["user"], "context": rows["context"], "candidates": [rows["item"]], "top_k": 10}


def _row(columns: Mapping[str, RequestColumn]) -> dict[str, Any]:
    return {name: _example(column) for name, column in columns.items()}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _words(column: RequestColumn) -> str:
    kind = column.type
    if column.separator is not None:
        what = "ids" if column.is_id else "numbers"
        return f"{what} in one string, with {_json(column.separator)} between them"
    if is_list_type(kind):
        return f"a list; each is {_words(RequestColumn(kind.value_type, is_id=column.is_id))}"
    name = "an id, " if column.is_id else ""
    if pa.types.is_boolean(kind):
        return f"{name}true or false"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "an id, a whole number or its digits as a string" if column.is_id else "a number"
    if pa.types.is_temporal(kind):
        return f"{name}a time in ISO 8601"
    return f"{name}a number" if pa.types.is_decimal(kind) else f"{name}a string"


def _example(column: RequestColumn) -> Any:
    """A value of the type; of ids that are numbers the least, which an index of any size has."""
    kind = column.type
    if column.separator is not None:
        return column.separator.join("ab" if column.is_id else "12")
    if is_list_type(kind):
        return [_example(RequestColumn(kind.value_type, is_id=column.is_id))]
    if pa.types.is_boolean(kind):
        return True
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return 0 if column.is_id else 1.5
    if pa.types.is_decimal(kind):
        return "0"
    if pa.types.is_date(kind):
        return "2026-01-31"
    if pa.types.is_time(kind):
        return "10:00:00"
    if pa.types.is_timestamp(kind):
        return "2026-01-31T10:00:00" + ("Z" if kind.tz is not None else "")
    return "a"

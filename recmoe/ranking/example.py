"""Ranking requests made of rows of a log: what the product would have asked."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pyarrow as pa

from recmoe.features.layout import Side
from recmoe.features.schema import FeatureSchema


def requests_of_rows(schema: FeatureSchema, rows: pa.Table) -> Iterator[dict[str, Any]]:
    """Requests whose candidates are consecutive rows of one list with the same user and context.

    Missing values are left out, as a product would leave them out.

    Args:
        rows: flat rows with the columns of all sides.
    """
    columns: dict[Side, list[str]] = {"user": [], "context": [], "item": []}
    for name, column in schema.raw_columns():
        of_side = columns[schema.features[name].side]
        if column.name not in of_side:
            of_side.append(column.name)
    if schema.item is not None and schema.item not in columns["item"]:
        columns["item"].append(schema.item)
    shared = [*columns["user"], *columns["context"]]
    group = [schema.group] if schema.group is not None and schema.group in rows.column_names else []

    def list_of(row: dict[str, Any]) -> str:
        return repr([row[name] for name in (*group, *shared)])

    wanted = dict.fromkeys([*shared, *columns["item"], *group])
    for _, members in groupby(rows.select(list(wanted)).to_pylist(), key=list_of):
        candidates = list(members)
        yield {
            "user": _present(candidates[0], columns["user"]),
            "context": _present(candidates[0], columns["context"]),
            "candidates": [_present(row, columns["item"]) for row in candidates],
        }


def _present(row: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The columns that hold something; NaN is nothing."""
    return {name: row[name] for name in names if row[name] is not None and row[name] == row[name]}

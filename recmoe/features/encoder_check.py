"""check_fits(): whether what an encoder's files hold is what its schema needs, before anything is built of it."""

import math
from collections.abc import Mapping, Set
from typing import Any

import pyarrow as pa
from pydantic import PositiveInt, TypeAdapter

from recmoe.config import all_problems
from recmoe.features.encodings.dynamic import DynamicIds
from recmoe.features.encodings.row_contest import IdUpdate
from recmoe.features.id_keys import is_id_type
from recmoe.features.schema import FeatureSchema
from recmoe.features.statistics import NumericStatistics
from recmoe.json_document import checked

_CAPACITY: TypeAdapter[int] = TypeAdapter(PositiveInt)
_LAST: TypeAdapter[IdUpdate | None] = TypeAdapter(IdUpdate | None)


def check_fits(
    schema: FeatureSchema, *, columns: pa.Schema, learned: Set[str], numbers: Mapping[str, NumericStatistics]
) -> None:
    """Compare what was learned with the schema.

    Args:
        columns: raw columns with their types.
        learned: tables whose ids were learned.
        numbers: statistics by feature.

    Raises:
        ValueError: the schema does not hold together, or something is missing, too much or of a wrong kind.
    """
    for path, message in all_problems(schema):
        raise ValueError(f"schema.{path}: {message}")
    _check_columns(schema, columns)
    _check_names(
        "ids of table", learned, {name for name, table in schema.tables().items() if table.encoding.grow(None)}
    )
    measured = {name for name, feature in schema.features.items() if feature.number_learner(name) is not None}
    _check_names("statistics of feature", numbers.keys(), measured)
    for name, statistics in numbers.items():
        _check_statistics(name, statistics)


def check_dynamic(table: pa.Table, values: Mapping[str, Any]) -> None:
    """ValueError where a table and what stands beside it cannot be ids that come and go; see ``DynamicIds``."""
    capacity = checked(_CAPACITY, values["capacity"])
    checked(_LAST, values["last"])
    columns = DynamicIds.empty(capacity).to_table().schema
    found = ", ".join(f"{column.name} ({column.type})" for column in table.schema)
    if table.schema != columns or any(column.null_count for column in table.columns):
        raise ValueError(f"expected the columns {', '.join(columns.names)} without nulls, found {found}")
    keys_n, rows_n = table["key"].to_numpy(), table["row"].to_numpy()
    if (keys_n[1:] <= keys_n[:-1]).any() or (rows_n < 0).any() or (rows_n > capacity).any():
        raise ValueError(f"ids that are not in ascending order, or of rows beyond 0 … {capacity:,}")


def _check_names(what: str, found: Set[str], needed: Set[str]) -> None:
    for name in needed - found:
        raise ValueError(f"the {what} {name} are missing")
    for name in found - needed:
        raise ValueError(f"there are {what} {name}, which the schema does not know")


def _check_columns(schema: FeatureSchema, columns: pa.Schema) -> None:
    needed = [(column.name, column.type_problem) for _, column in schema.raw_columns()]
    roles = [column for column in (schema.group, schema.item) if column is not None]
    for name in (*(name for name, _ in needed), *roles):
        if columns.names.count(name) != 1:
            raise ValueError(f"the type of column {name!r} is there {columns.names.count(name)} times")
    for name, type_problem in needed:
        if (problem := type_problem(columns.field(name).type)) is not None:
            raise ValueError(f"column {name!r}: {problem}")
    for name in roles:
        if not is_id_type(columns.field(name).type):
            raise ValueError(f"column {name!r}: expected one id per row, found {columns.field(name).type}")


def _check_statistics(name: str, statistics: NumericStatistics) -> None:
    mean, std, edges = statistics.mean, statistics.std, statistics.edges
    if any(isinstance(number, bool) or not isinstance(number, int | float) for number in (mean, std, *edges)):
        raise ValueError(f"statistics of feature {name} that are no numbers")
    if not std > 0 or (statistics.is_known and not math.isfinite(mean)):
        raise ValueError(f"feature {name} has the mean {mean} and the standard deviation {std}")
    if not all(math.isfinite(edge) for edge in edges) or list(edges) != sorted(edges) or len(edges) == 1:
        raise ValueError(f"the bucket edges of feature {name} do not increase")

"""planned_layout(): the layout of a model from row counts alone, before any log exists."""

import difflib
from collections.abc import Mapping
from dataclasses import replace

from recmoe.errors import SchemaError
from recmoe.features.input_layout import build_layout
from recmoe.features.layout import InputLayout
from recmoe.features.schema import FeatureSchema


def tables_without_rows(schema: FeatureSchema, rows: Mapping[str, int]) -> list[str]:
    """Tables whose size only a log, or ``rows``, can tell.

    Raises:
        SchemaError: ``rows`` names what is no table of ids.
    """
    tables = schema.tables()
    for name in rows:
        if name not in tables:
            close = difflib.get_close_matches(name, tables, n=1)
            hint = f", did you mean {close[0]}?" if close else f"; there are: {', '.join(tables)}"
            raise SchemaError(f"--rows {name}: there is no such table of ids{hint}")
    return [name for name, table in tables.items() if name not in rows and table.encoding.num_planned_ids is None]


def planned_layout(schema: FeatureSchema, rows: Mapping[str, int]) -> InputLayout:
    """The layout that a log with so many ids would give.

    Row 0 comes on top, and numbers get as many buckets as the config allows.

    Args:
        rows: by table, different ids; hashed, indexed and dynamic tables need none.
    """
    missing = tables_without_rows(schema, rows)
    assert not missing, f"no row counts for {', '.join(missing)}"
    num_rows = {}
    for name, table in schema.tables().items():
        num_ids = rows.get(name, table.encoding.num_planned_ids)
        assert num_ids is not None
        num_rows[name] = num_ids + 1
    planned = {name: feature.planned_numbers() for name, feature in schema.features.items()}
    numbers = {name: statistics for name, statistics in planned.items() if statistics is not None}
    return build_layout(schema, num_rows=num_rows, numbers=numbers)


def with_rows(layout: InputLayout, rows: Mapping[str, int]) -> InputLayout:
    """A learned layout with the row counts of some tables replaced; row 0 comes on top."""
    return replace(
        layout,
        tables=tuple(
            replace(spec, num_rows=rows[spec.name] + 1) if spec.name in rows else spec for spec in layout.tables
        ),
    )


def frequent_first(schema: FeatureSchema) -> frozenset[str]:
    """Tables whose first rows are the most frequent: vocabularies; all others scatter them, in time at least."""
    return frozenset(name for name, table in schema.tables().items() if table.encoding.is_frequent_first)


def ids_per_row(schema: FeatureSchema, given: Mapping[str, float]) -> dict[str, float]:
    """Ids of a row by sparse key: one of an id feature and of a bucket; of a list what is given.

    Raises:
        SchemaError: ``given`` names what is no list.
    """
    lists = list(dict.fromkeys(name for name, column in schema.raw_columns() if column.holds == "ids"))
    for name in given:
        if name not in lists:
            raise SchemaError(
                f"--ids-per-row {name}: there is no such id_list feature; there are: {', '.join(lists) or 'none'}"
            )
    counts: dict[str, float] = {}
    for name, feature in schema.features.items():
        counts.update(feature.planned_ids(name, per_row=given.get(name)))
    return counts

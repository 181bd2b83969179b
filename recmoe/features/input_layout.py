"""input_layout: the batch columns and tables that a schema makes."""

from collections.abc import Mapping
from itertools import chain

from recmoe.features.layout import InputLayout, SparseKey, TableSpec
from recmoe.features.schema import FeatureSchema
from recmoe.features.statistics import NumericStatistics


def build_layout(
    schema: FeatureSchema, *, num_rows: Mapping[str, int], numbers: Mapping[str, NumericStatistics]
) -> InputLayout:
    """Tables in the order in which features first name them, keys by table, dense columns by feature.

    Args:
        schema: the features.
        num_rows: per table of ids, its rows, row 0 included.
        numbers: per numeric feature, its statistics.
    """
    tables = schema.tables()
    parts = [
        feature.layout(name, width=schema.width, tables=tables, numbers=numbers.get(name))
        for name, feature in schema.features.items()
    ]
    rows_of = {**num_rows, **{table: rows for part in parts for table, rows in part.num_rows.items()}}
    keys: dict[str, list[SparseKey]] = {}
    for key in chain.from_iterable(part.keys for part in parts):
        keys.setdefault(key.table, []).append(key)
    return InputLayout(
        tables=tuple(
            TableSpec(
                name=table,
                num_rows=rows_of[table],
                width=of_table[0].width,
                pooling=tables[table].pooling if table in tables else "sum",
                keys=tuple(key.name for key in of_table),
            )
            for table, of_table in keys.items()
        ),
        sparse=tuple(chain.from_iterable(keys.values())),
        dense=tuple(chain.from_iterable(part.dense for part in parts)),
        sequences=tuple(chain.from_iterable(part.sequences for part in parts)),
    )

"""input_layout: the batch columns and tables that a schema makes."""

from collections.abc import Mapping

from recmoe.features.layout import DenseColumn, InputLayout, SparseKey, TableSpec
from recmoe.features.schema import FeatureSchema, NumericFeature, table_pooling
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
    keys: dict[str, list[SparseKey]] = {}
    rows_of: dict[str, int] = {}
    dense: list[DenseColumn] = []
    for name, feature in schema.features.items():
        width = feature.width or schema.width
        if not isinstance(feature, NumericFeature):
            table = feature.table or name
            keys.setdefault(table, []).append(
                SparseKey(name=name, feature=name, side=feature.side, table=table, width=width)
            )
            rows_of[table] = num_rows[table]
            continue
        num_buckets = len(numbers[name].edges) - 1
        if "value" in feature.forms:
            dense.append(DenseColumn(name=name, feature=name, side=feature.side, form="value"))
        if "vector" in feature.forms:
            dense.append(
                DenseColumn(
                    name=f"{name}#position",
                    feature=name,
                    side=feature.side,
                    form="position",
                    num_buckets=num_buckets,
                    width=width,
                )
            )
        if "bucket" in feature.forms:
            key = bucket_key(name)
            keys[key] = [SparseKey(name=key, feature=name, side=feature.side, table=key, width=width)]
            rows_of[key] = num_buckets + 1
    tables = tuple(
        TableSpec(
            name=table,
            num_rows=rows_of[table],
            width=of_table[0].width,
            pooling=table_pooling(schema.features, table),
            keys=tuple(key.name for key in of_table),
        )
        for table, of_table in keys.items()
    )
    return InputLayout(
        tables=tables, sparse=tuple(key for of_table in keys.values() for key in of_table), dense=tuple(dense)
    )


def bucket_key(feature: str) -> str:
    """Name of the key, and of the table, of a number's buckets."""
    return f"{feature}#bucket"

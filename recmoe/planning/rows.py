"""planned_layout(): the layout of a model from row counts alone, before any log exists."""

import difflib
from collections.abc import Mapping
from dataclasses import replace

from recmoe.errors import SchemaError
from recmoe.features.input_layout import bucket_key, build_layout
from recmoe.features.layout import InputLayout
from recmoe.features.schema import (
    DynamicConfig,
    FeatureSchema,
    GivenBuckets,
    HashConfig,
    IdFeature,
    IdListFeature,
    IndexConfig,
    NumericFeature,
    VocabularyConfig,
)
from recmoe.features.statistics import NumericStatistics

DEFAULT_LIST_LENGTH = 10
"""Ids of a list where nobody says how many there are."""


def id_tables(schema: FeatureSchema) -> dict[str, IdFeature | IdListFeature]:
    """The tables of ids, each with the first feature that reads it."""
    tables: dict[str, IdFeature | IdListFeature] = {}
    for name, feature in schema.features.items():
        if not isinstance(feature, NumericFeature):
            tables.setdefault(feature.table or name, feature)
    return tables


def tables_without_rows(schema: FeatureSchema, rows: Mapping[str, int]) -> list[str]:
    """Tables whose size only a log, or ``rows``, can tell.

    Raises:
        SchemaError: ``rows`` names what is no table of ids.
    """
    tables = id_tables(schema)
    for name in rows:
        if name not in tables:
            close = difflib.get_close_matches(name, tables, n=1)
            hint = f", did you mean {close[0]}?" if close else f"; there are: {', '.join(tables)}"
            raise SchemaError(f"--rows {name}: there is no such table of ids{hint}")
    return [
        name for name, feature in tables.items() if name not in rows and isinstance(feature.encoding, VocabularyConfig)
    ]


def planned_layout(schema: FeatureSchema, rows: Mapping[str, int]) -> InputLayout:
    """The layout that a log with so many ids would give.

    Row 0 comes on top, and numbers get as many buckets as the config allows.

    Args:
        rows: by table, different ids; hashed, indexed and dynamic tables need none.
    """
    missing = tables_without_rows(schema, rows)
    assert not missing, f"no row counts for {', '.join(missing)}"
    num_rows = {}
    for name, feature in id_tables(schema).items():
        encoding = feature.encoding
        if name in rows:
            num_ids = rows[name]
        elif isinstance(encoding, HashConfig):
            num_ids = encoding.num_buckets
        elif isinstance(encoding, DynamicConfig):
            num_ids = encoding.capacity
        else:
            assert isinstance(encoding, IndexConfig)
            num_ids = encoding.num_ids
        num_rows[name] = num_ids + 1
    numbers = {
        name: NumericStatistics(mean=0.0, std=1.0, edges=tuple(map(float, range(_num_buckets(feature) + 1))))
        for name, feature in schema.features.items()
        if isinstance(feature, NumericFeature)
    }
    return build_layout(schema, num_rows=num_rows, numbers=numbers)


def with_rows(layout: InputLayout, rows: Mapping[str, int]) -> InputLayout:
    """A learnt layout with the row counts of some tables replaced; row 0 comes on top."""
    return replace(
        layout,
        tables=tuple(
            replace(spec, num_rows=rows[spec.name] + 1) if spec.name in rows else spec for spec in layout.tables
        ),
    )


def frequent_first(schema: FeatureSchema) -> frozenset[str]:
    """Tables whose first rows are the most frequent: vocabularies; all others scatter them, in time at least."""
    return frozenset(
        name for name, feature in id_tables(schema).items() if isinstance(feature.encoding, VocabularyConfig)
    )


def ids_per_row(schema: FeatureSchema, given: Mapping[str, float]) -> dict[str, float]:
    """Ids of a row by sparse key: one of an id feature and of a bucket; of a list what is given.

    Raises:
        SchemaError: ``given`` names what is no list.
    """
    lists = [name for name, feature in schema.features.items() if isinstance(feature, IdListFeature)]
    for name in given:
        if name not in lists:
            raise SchemaError(
                f"--ids-per-row {name}: there is no such id_list feature; there are: {', '.join(lists) or 'none'}"
            )
    counts = {}
    for name, feature in schema.features.items():
        if isinstance(feature, IdListFeature):
            counts[name] = given.get(name, float(min(feature.max_length or DEFAULT_LIST_LENGTH, DEFAULT_LIST_LENGTH)))
        elif isinstance(feature, IdFeature):
            counts[name] = 1.0
        elif "bucket" in feature.forms:
            counts[bucket_key(name)] = 1.0
    return counts


def _num_buckets(feature: NumericFeature) -> int:
    buckets = feature.buckets
    return len(buckets.boundaries) + 1 if isinstance(buckets, GivenBuckets) else buckets.count

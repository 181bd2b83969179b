"""Tests of the layout that a schema makes."""

from recmoe.features.encodings import HashConfig
from recmoe.features.input_layout import build_layout
from recmoe.features.kinds import IdFeature, IdListFeature, NumericFeature
from recmoe.features.layout import TableSpec
from recmoe.features.schema import FeatureSchema
from recmoe.features.statistics import NumericStatistics

NUMBERS = NumericStatistics(mean=0.0, std=1.0, edges=(0.0, 1.0, 2.0, 3.0))


def _hashed(**fields: object) -> dict[str, object]:
    return {"encoding": HashConfig(num_buckets=9), **fields}


def test_keys_of_one_table_stand_together() -> None:
    schema = FeatureSchema(
        features={
            "bought": IdListFeature(table="items", side="user", pooling="mean", **_hashed()),  # type: ignore[arg-type]
            "city": IdFeature(width=4, **_hashed()),  # type: ignore[arg-type]
            "item": IdFeature(table="items", **_hashed()),  # type: ignore[arg-type]
        }
    )

    layout = build_layout(schema, num_rows={"items": 10, "city": 6}, numbers={})

    assert [key.name for key in layout.sparse] == ["bought", "item", "city"]
    assert layout.tables == (
        TableSpec(name="items", num_rows=10, width=16, pooling="mean", keys=("bought", "item")),
        TableSpec(name="city", num_rows=6, width=4, pooling="sum", keys=("city",)),
    )


def test_number_has_a_column_or_key_per_form() -> None:
    schema = FeatureSchema(
        width=8,
        features={
            "age": NumericFeature(side="user", forms=("bucket", "vector", "value"), width=2),
            "hour": NumericFeature(side="context", forms=("vector",)),
        },
    )

    layout = build_layout(schema, num_rows={}, numbers={"age": NUMBERS, "hour": NUMBERS})

    dense = [(column.name, column.form, column.num_buckets, column.width) for column in layout.dense]
    assert dense == [("age", "value", 0, 1), ("age#position", "position", 3, 2), ("hour#position", "position", 3, 8)]
    assert layout.tables == (TableSpec(name="age#bucket", num_rows=4, width=2, pooling="sum", keys=("age#bucket",)),)
    assert [(key.name, key.feature, key.side) for key in layout.sparse] == [("age#bucket", "age", "user")]
    assert layout.width == 1 + 2 + 8 + 2
    assert [column.feature for column in layout.select(("context",)).dense] == ["hour"]

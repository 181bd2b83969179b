"""Tests of FeatureEncoder.encode."""

import datetime
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from recmoe.errors import DataError, SchemaError
from recmoe.features.batch import NO_GROUP, Batch
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.encodings import HashConfig, IndexConfig
from recmoe.features.kinds import FeatureConfig, GivenBuckets, IdFeature, IdListFeature, NumericFeature
from recmoe.features.labels import LabelColumn
from recmoe.features.layout import InputLayout
from recmoe.features.schema import FeatureSchema

LABELS = [LabelColumn(column="click", is_binary=True)]


@pytest.fixture(scope="module")
def log() -> pa.Table:
    """Six impressions with every kind of feature and hole."""
    return pa.table(
        {
            "visit": [1, 1, 1, 2, 2, None],
            "user": ["ann", "ann", "ann", "bob", "bob", None],
            "tags": [["x", "y"], None, [], ["x", None], ["z"], ["y", "y", "x"]],
            "age": [20, 20, None, 40, 40, 60],
            "city": pa.array(["Rome", "Oslo", "Rome", None, "Rome", "Oslo"]).dictionary_encode(),
            "shop": [0, 1, 2, None, 1, 0],
            "words": ["a b", "b", None, "", "c a", "b"],
            "price": [1.0, 4.0, float("nan"), 2.0, 8.0, None],
            "item": [100, 101, 102, 100, 101, 103],
            "click": [1, 0, None, 1, 0, 0],
        }
    )


@pytest.fixture(scope="module")
def schema() -> FeatureSchema:
    """Reads every column of the log."""
    return FeatureSchema(
        width=4,
        group="visit",
        item="item",
        features={
            "user": IdFeature(side="user"),
            "tags": IdListFeature(side="user"),
            "age": NumericFeature(side="user", forms=("value", "bucket", "vector")),
            "city": IdFeature(side="context", encoding=HashConfig(num_buckets=50)),
            "shop": IdFeature(encoding=IndexConfig(num_ids=3)),
            "words": IdListFeature(separator=" ", max_length=1),
            "price": NumericFeature(log1p=True),
        },
    )


@pytest.fixture(scope="module")
def encoder(log: pa.Table, schema: FeatureSchema) -> FeatureEncoder:
    return FeatureEncoder.fit(schema, [log.slice(0, 4), log.slice(4)], LABELS)


def _rows(batch: Batch, layout: InputLayout) -> dict[str, list[list[int]]]:
    """Ids per key and row."""
    values = iter(batch.values.tolist())
    return {
        key.name: [[next(values) for _ in range(length)] for length in lengths]
        for key, lengths in zip(layout.sparse, batch.lengths_KB.tolist(), strict=True)
    }


def _fitted(feature: FeatureConfig, values: Sequence[object]) -> FeatureEncoder:
    return FeatureEncoder.fit(FeatureSchema(features={"x": feature}), [pa.table({"x": values})])


def _assert_equal(batch: Batch, other: Batch) -> None:
    assert torch.equal(batch.dense_BF, other.dense_BF)
    assert torch.equal(batch.lengths_KB, other.lengths_KB)
    assert torch.equal(batch.values, other.values)
    assert torch.equal(batch.labels_BL.nan_to_num(-1), other.labels_BL.nan_to_num(-1))
    assert batch.groups_B is not None
    assert other.groups_B is not None
    assert torch.equal(batch.groups_B, other.groups_B)


def test_batch_has_the_order_and_types_of_the_layout(encoder: FeatureEncoder, log: pa.Table) -> None:
    batch = encoder.encode(log)

    layout = encoder.layout
    assert [key.name for key in layout.sparse] == ["user", "tags", "age#bucket", "city", "shop", "words"]
    assert [column.name for column in layout.dense] == ["age", "age#position", "price"]
    assert (batch.dense_BF.shape, batch.dense_BF.dtype) == ((6, 3), torch.float32)
    assert (batch.lengths_KB.shape, batch.lengths_KB.dtype) == ((6, 6), torch.int32)
    assert (len(batch.values), batch.values.dtype) == (batch.lengths_KB.sum(), torch.int64)
    assert batch.labels_BL.nan_to_num(-1).tolist() == [[1.0], [0.0], [-1.0], [1.0], [0.0], [0.0]]
    for table in layout.tables:
        ids = [id_ for key in table.keys for row in _rows(batch, layout)[key] for id_ in row]
        assert min(ids) >= 0
        assert max(ids) < table.num_rows


def test_ids_become_rows_and_missing_ones_row_zero(encoder: FeatureEncoder, log: pa.Table) -> None:
    rows = _rows(encoder.encode(log), encoder.layout)

    assert rows["user"] == [[1], [1], [1], [2], [2], [0]]
    assert rows["tags"] == [[1, 2], [], [], [1], [3], [2, 2, 1]]
    assert rows["shop"] == [[1], [2], [3], [0], [2], [1]]
    assert rows["words"] == [[1], [1], [], [], [2], [1]]
    assert rows["age#bucket"] == [[1], [1], [0], [2], [2], [3]]
    assert rows["city"][3] == [0]
    assert rows["city"][0] == rows["city"][2] != rows["city"][1]


def test_numbers_become_z_scores_and_positions(encoder: FeatureEncoder, log: pa.Table) -> None:
    age_B, position_B, price_B = encoder.encode(log).dense_BF.T

    mean, std = 36.0, np.sqrt((2 * 16**2 + 2 * 4**2 + 24**2) / 5)
    assert age_B.tolist() == pytest.approx([(x - mean) / std for x in (20, 20, mean, 40, 40, 60)], abs=1e-6)
    assert position_B.tolist() == pytest.approx([0.0, 0.0, 1 + 6 / 20, 1.5, 1.5, 3.0])
    assert price_B[2] == price_B[5] == 0
    assert float(price_B[1] - price_B[0]) * np.log1p([1, 4, 2, 8]).std() == pytest.approx(np.log(5 / 2), abs=1e-6)


def test_unknown_id_becomes_row_zero(encoder: FeatureEncoder, log: pa.Table) -> None:
    column = pa.array(["bob", "eve", "ann", "", "7", "Bob"])

    rows = _rows(encoder.encode(log.set_column(1, "user", column)), encoder.layout)

    assert rows["user"] == [[2], [0], [1], [0], [0], [0]]


def test_encoding_one_row_equals_encoding_it_in_a_batch(encoder: FeatureEncoder, log: pa.Table) -> None:
    whole = encoder.encode(log)
    rows = _rows(whole, encoder.layout)

    for row in range(log.num_rows):
        alone = encoder.encode(log.slice(row, 1))

        assert torch.equal(alone.dense_BF, whole.dense_BF[row : row + 1])
        assert {key: ids[row] for key, ids in rows.items()} == {
            key: ids[0] for key, ids in _rows(alone, encoder.layout).items()
        }
        assert alone.groups_B is not None
        assert whole.groups_B is not None
        assert alone.groups_B[0] == whole.groups_B[row]


def test_one_row_of_many_random_numbers_is_encoded_to_the_same_bits() -> None:
    x = np.random.default_rng(0).lognormal(0, 5, 1000)
    encoder = _fitted(NumericFeature(log1p=True, forms=("value", "vector")), pa.array(x))
    table = pa.table({"x": x})

    whole_BF = encoder.encode(table).dense_BF

    for row in range(0, 1000, 37):
        assert torch.equal(encoder.encode(table.slice(row, 1)).dense_BF[0], whole_BF[row])


def test_chunks_and_slices_do_not_matter(encoder: FeatureEncoder, log: pa.Table) -> None:
    chunked = pa.concat_tables([log.slice(0, 1), log.slice(1, 0), log.slice(1, 3), log.slice(4)])
    sliced = pa.concat_tables([log, log]).combine_chunks().slice(6)

    _assert_equal(encoder.encode(chunked), encoder.encode(log))
    _assert_equal(encoder.encode(sliced), encoder.encode(log))


@pytest.mark.parametrize("has_chunks", [True, False])
def test_empty_table_is_an_empty_batch(encoder: FeatureEncoder, log: pa.Table, has_chunks: bool) -> None:
    batch = encoder.encode(log.slice(0, 0) if has_chunks else log.schema.empty_table())

    assert batch.num_rows == 0
    assert batch.dense_BF.shape == (0, 3)
    assert batch.lengths_KB.shape == (6, 0)
    assert batch.values.tolist() == []
    assert batch.labels_BL.shape == (0, 1)
    assert batch.groups_B is not None
    assert batch.groups_B.tolist() == []


def test_row_of_nulls_without_types_is_a_row_of_missing_values(encoder: FeatureEncoder) -> None:
    table = pa.table({name: pa.nulls(1) for name in encoder.columns()})

    rows = _rows(encoder.encode(table), encoder.layout)

    assert rows == {"user": [[0]], "tags": [[]], "age#bucket": [[0]], "city": [[0]], "shop": [[0]], "words": [[]]}


def test_types_of_columns_do_not_matter(encoder: FeatureEncoder, log: pa.Table) -> None:
    kinds = {
        "visit": pa.float64(),
        "user": pa.dictionary(pa.int8(), pa.large_string()),
        "tags": pa.large_list(pa.large_string()),
        "age": pa.float32(),
        "city": pa.large_string(),
        "shop": pa.string(),
        "words": pa.large_string(),
        "click": pa.bool_(),
    }
    changed = pa.table({name: log[name].cast(kinds[name]) if name in kinds else log[name] for name in log.column_names})

    _assert_equal(encoder.encode(changed), encoder.encode(log))


@pytest.mark.parametrize(
    "values",
    [
        pa.array([7, 8, None]),
        pa.array(["7", "8", None]),
        pa.array([7.0, 8.0, float("nan")]),
        pa.array([7, 8, None]).dictionary_encode(),
        pa.array([Decimal("7.0"), Decimal("8.0"), None]),
    ],
    ids=lambda values: str(values.type),
)
@pytest.mark.parametrize("encoding", [{"kind": "vocabulary"}, {"kind": "hash"}, {"kind": "index", "num_ids": 9}])
def test_seven_is_one_id_in_every_type(values: pa.Array, encoding: dict[str, object]) -> None:
    encoder = _fitted(IdFeature.model_validate({"encoding": encoding}), pa.array([7, 8, None]))
    expected = encoder.encode(pa.table({"x": [7, 8, None]})).values

    assert encoder.encode(pa.table({"x": values})).values.tolist() == expected.tolist()
    assert 0 < expected[0] != expected[1] > 0 == expected[2]


def test_dates_are_ids() -> None:
    days = [datetime.date(2026, 1, 31), datetime.date(2026, 2, 1)]
    encoder = _fitted(IdFeature(), pa.array(days))

    assert encoder.encode(pa.table({"x": ["2026-02-01", "2026-01-31"]})).values.tolist() == [2, 1]


def test_null_is_the_id_that_stands_for_it() -> None:
    encoder = _fitted(IdFeature(missing="none"), ["a", "none", None])

    assert encoder.encode(pa.table({"x": [None, "none", "a", "b"]})).values.tolist() == [1, 1, 2, 0]


def test_id_beyond_its_table_names_the_column() -> None:
    encoder = _fitted(IdFeature(encoding=IndexConfig(num_ids=3)), [0])

    with pytest.raises(DataError, match="column 'x' of feature 'x': id 3 is not one of the 3 row numbers"):
        encoder.encode(pa.table({"x": [3]}))


def test_id_that_stands_for_null_must_be_in_its_table() -> None:
    with pytest.raises(DataError, match=r"features\.x\.missing: id 3 is not one of the 3 row numbers"):
        _fitted(IdFeature(missing=3, encoding=IndexConfig(num_ids=3)), [0])


def test_given_buckets_end_where_the_data_do() -> None:
    feature = NumericFeature(forms=("bucket", "vector"), buckets=GivenBuckets(boundaries=(10.0, 20.0)))
    encoder = _fitted(feature, [0.0, 40.0])

    batch = encoder.encode(pa.table({"x": [-5.0, 5.0, 10.0, 30.0, 99.0, None]}))

    assert encoder.layout.tables[0].num_rows == 4
    assert batch.values.tolist() == [1, 1, 2, 3, 3, 0]
    assert batch.dense_BF[:, 0].tolist() == [0.0, 0.5, 1.0, 2.5, 3.0, 2.0]


def test_sides_are_encoded_apart(encoder: FeatureEncoder, log: pa.Table) -> None:
    shared = encoder.encode(log.select(["user", "tags", "age", "city"]), sides=("user", "context"), with_labels=False)
    own = encoder.encode(log.select(["shop", "words", "price"]), sides=("item",), with_labels=False)

    whole = encoder.encode(log)
    assert torch.equal(torch.cat([shared.dense_BF, own.dense_BF], dim=1), whole.dense_BF)
    assert torch.equal(torch.cat([shared.lengths_KB, own.lengths_KB]), whole.lengths_KB)
    assert torch.equal(torch.cat([shared.values, own.values]), whole.values)
    assert own.labels_BL.shape == (6, 0)
    assert own.groups_B is None


def test_groups_tell_lists_apart(encoder: FeatureEncoder, log: pa.Table) -> None:
    groups_B = encoder.encode(log).groups_B

    assert groups_B is not None
    assert groups_B.dtype == torch.int64
    assert len(set(groups_B.tolist())) == 3
    assert groups_B[0] == groups_B[1] == groups_B[2] != groups_B[3]


def test_row_without_a_group_is_marked(encoder: FeatureEncoder, log: pa.Table) -> None:
    groups_B = encoder.encode(log).groups_B

    assert groups_B is not None
    assert (groups_B == NO_GROUP).tolist() == log["visit"].is_null().to_pylist() == [False] * 5 + [True]


@pytest.mark.parametrize("values", [["123", "7"], [123, 7], [123.0, 7.0], pa.array([123, 7], pa.uint8())], ids=str)
def test_whole_floats_with_gaps_are_the_same_ids_in_every_form(values: list[Any]) -> None:
    encoder = _fitted(IdFeature(), [123.0, 123.0, None, 7.0])

    assert encoder.arrow_schema().field("x").type == pa.int64()
    assert encoder.encode(pa.table({"x": values})).values.tolist() == [1, 2]


def test_integers_beyond_floats_stay_apart() -> None:
    ids = [2**60 + 1, 2**60 + 2, 2**60 + 2]

    encoder = _fitted(IdFeature(), ids)

    assert encoder.encode(pa.table({"x": [str(number) for number in ids]})).values.tolist() == [2, 1, 1]
    assert encoder.encode(pa.table({"x": [2**60 + 3]})).values.tolist() == [0]


def test_schema_without_group_gives_none() -> None:
    assert _fitted(IdFeature(), [1]).encode(pa.table({"x": [1]})).groups_B is None


def test_missing_group_is_an_error_only_with_labels(encoder: FeatureEncoder, log: pa.Table) -> None:
    table = log.drop_columns(["visit"])

    with pytest.raises(SchemaError, match="column 'visit' is missing, needed by the schema, as its group"):
        encoder.encode(table)
    assert encoder.encode(table, with_labels=False).groups_B is None


def test_columns_are_those_that_encode_reads(encoder: FeatureEncoder, log: pa.Table) -> None:
    columns = encoder.columns()

    assert columns == ("user", "tags", "age", "city", "shop", "words", "price", "visit", "click")
    assert encoder.columns(sides=("item",), with_labels=False) == ("shop", "words", "price")
    _assert_equal(encoder.encode(log.select(columns)), encoder.encode(log))


def test_column_that_two_features_read_is_named_once() -> None:
    features: dict[str, FeatureConfig] = {"x": IdFeature(), "y": NumericFeature(column="x")}
    encoder = FeatureEncoder.fit(FeatureSchema(features=features), [pa.table({"x": [1, 2]})])

    assert encoder.columns() == ("x",)
    assert encoder.arrow_schema() == pa.schema({"x": pa.int64()})


def test_arrow_schema_has_the_types_of_training(encoder: FeatureEncoder) -> None:
    shared = {"user": pa.string(), "tags": pa.list_(pa.string()), "age": pa.int64(), "city": pa.string()}
    own = {"shop": pa.int64(), "words": pa.string(), "price": pa.float64(), "item": pa.int64()}

    assert encoder.arrow_schema() == pa.schema({**shared, **own, "visit": pa.int64()})
    assert encoder.arrow_schema(sides=("item",)) == pa.schema(own)


@pytest.mark.parametrize(
    ("feature", "values", "kind"),
    [
        (IdFeature(), pa.nulls(1), pa.string()),
        (IdListFeature(), pa.nulls(1), pa.list_(pa.string())),
        (IdListFeature(), [[]], pa.list_(pa.string())),
        (IdListFeature(separator="|"), pa.nulls(1), pa.string()),
        (NumericFeature(missing=1.0), pa.nulls(1), pa.float64()),
    ],
)
def test_column_without_values_has_the_type_its_feature_needs(
    feature: FeatureConfig, values: Sequence[object], kind: pa.DataType
) -> None:
    assert _fitted(feature, values).arrow_schema().field("x").type == kind


def test_unknown_and_missing_ids_are_counted_per_feature(encoder: FeatureEncoder, log: pa.Table) -> None:
    table = log.set_column(1, "user", pa.array(["ann", "eve", None, "bob", "eve", "eve"])).set_column(
        2, "tags", pa.array([["x", "new"], None, ["new"], [None], [], ["y"]])
    )

    counts = encoder.unknown_counts(table, encoder.encode(table))

    assert counts == {"user": (3, 1), "tags": (2, 1), "city": (0, 1), "shop": (0, 1), "words": (0, 1)}


def test_unknown_ids_are_counted_on_the_sides_of_the_batch(encoder: FeatureEncoder, log: pa.Table) -> None:
    batch = encoder.encode(log, sides=("item",), with_labels=False)

    assert encoder.unknown_counts(log, batch, ("item",)) == {"shop": (0, 1), "words": (0, 1)}


@pytest.mark.parametrize(("missing", "expected"), [("a", (1, 2)), ("never seen", (1, 2)), (None, (1, 2))])
def test_missing_ids_do_not_count_as_unknown(missing: str | None, expected: tuple[int, int]) -> None:
    encoder = _fitted(IdFeature(missing=missing), ["a", "b"])
    table = pa.table({"x": [None, "zzz", "a", None]})

    assert encoder.unknown_counts(table, encoder.encode(table)) == {"x": expected}


def test_large_batch_is_encoded_fast() -> None:
    random = np.random.default_rng(0)
    num_rows = 65_536
    raw = {f"id{i}": pa.array(random.integers(0, 10 ** (i % 5 + 1), num_rows)) for i in range(10)}
    raw |= {f"x{i}": pa.array(random.normal(size=num_rows)) for i in range(10)}
    features: dict[str, FeatureConfig] = {
        name: IdFeature() if name.startswith("id") else NumericFeature(log1p=True) for name in raw
    }
    table = pa.table(raw)
    encoder = FeatureEncoder.fit(FeatureSchema(features=features), [table])
    encoder.encode(table)

    start_s = time.thread_time()
    encoder.encode(table)

    # About 30 ms; the bound only finds work done per value in Python.
    assert time.thread_time() - start_s < 0.3

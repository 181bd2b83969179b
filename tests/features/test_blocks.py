"""BlockEncoder encodes as FeatureEncoder does, bit by bit, whatever the kinds, types and holes of the columns."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from recmoe.errors import DataError
from recmoe.features.blocks import BlockEncoder, BlockRows, concatenated, same
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.encodings import DynamicConfig, HashConfig, IndexConfig, VocabularyConfig
from recmoe.features.key_index import JointKeys
from recmoe.features.kinds import (
    FeatureConfig,
    GivenBuckets,
    IdFeature,
    IdListFeature,
    NumericFeature,
    SequenceColumn,
    SequenceFeature,
)
from recmoe.features.layout import ALL_SIDES, OWN_SIDES, SHARED_SIDES, Side
from recmoe.features.schema import FeatureSchema

NUM_ROWS = 60
FEATURES: dict[str, FeatureConfig] = {
    "user": IdFeature(side="user"),
    "friend": IdFeature(side="user", table="user"),
    "plan": IdFeature(side="user", encoding=HashConfig(num_buckets=7), missing="none"),
    "tags": IdListFeature(side="user"),
    "seen": SequenceFeature(columns={"item": SequenceColumn(column="seen", table="item")}, time="seen_at", now="now"),
    "hour": NumericFeature(side="context", forms=("value", "bucket", "vector")),
    "day": IdFeature(side="context", encoding=VocabularyConfig(min_count=9)),
    "item": IdFeature(),
    "shop": IdFeature(encoding=IndexConfig(num_ids=5)),
    "shelf": IdFeature(encoding=IndexConfig(num_ids=3, out_of_range="unknown")),
    "brand": IdFeature(encoding=DynamicConfig(capacity=4)),
    "size": IdFeature(encoding=HashConfig(num_buckets=11)),
    "price": NumericFeature(log1p=True, clip=(0.5, 1e300), forms=("value", "bucket")),
    "price_again": NumericFeature(column="price", missing=3.0, zscore=False, forms=("vector", "value")),
    "stock": NumericFeature(buckets=GivenBuckets(boundaries=(1.0, 4.0)), forms=("bucket",)),
    "never": NumericFeature(),
    "words": IdListFeature(separator=" "),
}


def columns_of(random: np.random.Generator) -> dict[str, Any]:
    """A column of every feature, with holes."""

    def some(values: list[Any], holes: float = 0.1) -> list[Any]:
        return [None if random.random() < holes else values[random.integers(len(values))] for _ in range(NUM_ROWS)]

    numbers = random.lognormal(0, 3, NUM_ROWS).tolist()
    return {
        "user": some(["ann", "bob", "", "7", "007", "ü" * 40]),
        "friend": some(["ann", "zoe", "7"]),
        "plan": some(["free", "paid"]),
        "tags": some([["x"], ["x", "y", None], []]),
        "seen": some([[1, 2], [3], []], holes=0.0),
        "now": [10.0] * NUM_ROWS,
        "hour": pa.array(some(list(range(24))), pa.int8()),
        "day": some([1.0, 2.0, 0.5]),
        "item": some([1, 2, 3, 2**62, -4]),
        "shop": some([0, 1, 4]),
        "shelf": some([0, 2, 99, -1]),
        "brand": some(["a", "b", "c", "d", "e", "f"]),
        "size": some([1, 2, 3, 4]),
        "price": [None if index % 9 == 0 else number for index, number in enumerate(numbers)],
        "stock": pa.array(some([0, 1, 2, 5]), pa.int64()),
        "never": pa.nulls(NUM_ROWS, pa.float64()),
        "words": some(["a b", "c", "", " "]),
    }


@pytest.fixture(scope="module")
def log() -> pa.Table:
    columns = columns_of(np.random.default_rng(0))
    # A history is as long as its times.
    columns["seen_at"] = [
        None if ids is None else [float(place) for place in range(len(ids))] for ids in columns["seen"]
    ]
    return pa.table(columns)


@pytest.fixture(scope="module")
def encoder(log: pa.Table) -> FeatureEncoder:
    return FeatureEncoder.fit(FeatureSchema(width=4, features=FEATURES), [log])


def blocks_of(encoder: FeatureEncoder, sides: tuple[Side, ...]) -> BlockEncoder:
    types = {field.name: field.type for field in encoder.arrow_schema(sides=sides)}
    return BlockEncoder(encoder, sides, types)


@pytest.mark.parametrize("sides", [ALL_SIDES, SHARED_SIDES, OWN_SIDES, ("context",)])
@pytest.mark.parametrize("num_rows", [NUM_ROWS, 1])
def test_rows_are_encoded_as_by_the_encoder(
    encoder: FeatureEncoder, log: pa.Table, sides: tuple[Side, ...], num_rows: int
) -> None:
    blocks = blocks_of(encoder, sides)
    for first in range(0, NUM_ROWS, num_rows):
        rows = log.slice(first, num_rows)

        found = blocks.encode(blocks.of_table(rows))

        assert same(found.batch, encoder.encode(rows, sides=sides, with_labels=False))


def test_columns_of_one_type_are_one_block(encoder: FeatureEncoder) -> None:
    columns = blocks_of(encoder, ALL_SIDES).block_columns

    assert ("user", "friend") in columns
    assert ("shop", "shelf") in columns
    assert ("price", "price", "never") in columns
    assert "words" not in {name for names in columns for name in names}


def test_what_is_missing_and_unknown_is_counted(encoder: FeatureEncoder, log: pa.Table) -> None:
    blocks = blocks_of(encoder, ALL_SIDES)

    found = blocks.encode(blocks.of_table(log))

    counts = encoder.unknown_counts(log, found.batch)
    of_feature = {name: counts[key] for name, key in (("day", "day"), ("shelf", "shelf"), ("user", "user"))}
    assert {name: (found.unknown.get(name, 0), found.missing[name]) for name in of_feature} == of_feature
    assert found.unknown["shelf"] > 0
    assert found.missing["never"] == NUM_ROWS
    assert "plan" in found.missing
    assert "plan" not in found.unknown


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 7], r"column 'shop' of feature 'shop': id 7 is not one of the 5 row numbers 0 … 4"),
        ([-1, 0], r"column 'shop' of feature 'shop': id -1 is not one"),
    ],
)
def test_id_beyond_its_table_is_refused_as_by_the_encoder(values: list[int], message: str) -> None:
    features: dict[str, FeatureConfig] = {"shop": FEATURES["shop"], "shelf": FEATURES["shelf"]}
    encoder = FeatureEncoder.fit(FeatureSchema(features=features), [pa.table({"shop": [1], "shelf": [1]})])
    blocks = blocks_of(encoder, ALL_SIDES)
    rows = pa.table({"shop": values, "shelf": [9, 9]})

    for encode in (lambda: blocks.encode(blocks.of_table(rows)), lambda: encoder.encode(rows, with_labels=False)):
        with pytest.raises(DataError, match=message):
            encode()


def test_text_beyond_its_table_is_shown_as_it_came() -> None:
    encoder = FeatureEncoder.fit(FeatureSchema(features={"shop": FEATURES["shop"]}), [pa.table({"shop": ["1"]})])
    blocks = blocks_of(encoder, ALL_SIDES)

    with pytest.raises(DataError, match="id 'x' is not one of the 5"):
        blocks.encode(BlockRows([pa.array(["0", "0", "x"])], None, 3))


def test_batches_of_requests_are_joined_row_by_row(encoder: FeatureEncoder, log: pa.Table) -> None:
    blocks = blocks_of(encoder, ALL_SIDES)
    parts = [blocks.encode(blocks.of_table(log.slice(first, num))).batch for first, num in ((0, 7), (7, 1), (8, 52))]

    joined = concatenated(parts, blocks.layout)

    assert same(joined, encoder.encode(log, with_labels=False))
    assert concatenated(parts[:1], blocks.layout) is parts[0]


def test_batches_that_differ_are_not_the_same(encoder: FeatureEncoder, log: pa.Table) -> None:
    batch = encoder.encode(log, with_labels=False)
    values = batch.values.clone()
    values[0] += 1

    assert same(batch, batch)
    assert not same(batch, type(batch)(**{**vars(batch), "values": values}))
    assert not same(batch, type(batch)(**{**vars(batch), "ages": None}))
    assert not same(batch, type(batch)(**{**vars(batch), "ages": torch.zeros_like(batch.dense_BF[:, 0])}))


def test_tables_whose_salted_keys_would_meet_take_other_salts() -> None:
    first = JointKeys([(np.zeros(0, np.uint64), np.zeros(0, np.int64))] * 2)
    salts = first._salts_K1.reshape(-1)
    # The key of table 1 that its salt makes equal to key 5 of table 0.
    meeting = np.array([5], np.uint64) ^ salts[0] ^ salts[1]
    holders = [(np.array([5, 9], np.uint64), np.array([1, 2])), (meeting, np.array([1]))]

    joint = JointKeys(holders)

    keys = np.stack([np.array([5, 9], np.uint64), np.array([meeting[0], 5], np.uint64)])
    assert joint.rows(keys).tolist() == [[1, 2], [1, 0]]


def test_key_that_a_table_holds_twice_keeps_its_first_row() -> None:
    joint = JointKeys([(np.array([5, 5], np.uint64), np.array([1, 2])), (np.array([7], np.uint64), np.array([3]))])

    assert joint.rows(np.array([[5], [7]], np.uint64)).tolist() == [[1], [3]]

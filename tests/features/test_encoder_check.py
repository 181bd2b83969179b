"""An encoder's files hold what its schema needs, or one line says what they do not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from recmoe.errors import DataError
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.schema import FeatureSchema

ROWS = pa.table({"list": [1, 2], "item": ["a", "b"], "price": [1.0, 3.0], "city": ["x", "y"]})
SCHEMA: dict[str, Any] = {
    "group": "list",
    "item": "item",
    "features": {
        "item": {"kind": "id"},
        "city": {"kind": "id", "encoding": {"kind": "dynamic", "capacity": 3, "admit_after": 1}},
        "price": {"kind": "numeric", "forms": ["value", "bucket"]},
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    FeatureEncoder.fit(FeatureSchema.model_validate(SCHEMA), [ROWS]).save(tmp_path / "encoder")
    return tmp_path / "encoder"


def change(folder: Path, path: str, value: object) -> None:
    document = json.loads((folder / "encoder.json").read_text())
    *before, last = path.split("/")
    section = document
    for key in before:
        section = section[key]
    if value is None:
        del section[last]
    else:
        section[last] = value
    (folder / "encoder.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("vocabularies", {}, "the ids of table item are missing"),
        ("dynamic/city", None, "the ids of table city are missing"),
        ("vocabularies/shop", "vocabulary_0.arrow", "there are ids of table shop, which the schema does not know"),
        ("vocabularies/item", "../vocabulary_0.arrow", r"encoder\.json names the file '\.\./vocabulary_0\.arrow'"),
        ("vocabularies/item", 3, "expected string"),
        ("numbers/price", None, "the statistics of feature price are missing"),
        ("numbers/price/mean", "1", "statistics of feature price that are no numbers"),
        ("numbers/price/std", 0, "feature price has the mean 2.0 and the standard deviation 0"),
        ("numbers/price/edges", [1, 3, 2], "the bucket edges of feature price do not increase"),
        ("dynamic/city/capacity", -1, "Input should be greater than 0"),
        ("dynamic/city/capacity", 1, r"rows beyond 0 … 1"),
        ("dynamic/city/last", [], "cannot be read: "),
        ("schema/features/price/kind", "nothing", r"features\.price: "),
        ("schema/features/price/forms", [], r"schema\.features\.price\.forms: at least one of value, bucket, vector"),
        ("schema/features/item/column", "other", "the type of column 'other' is there 0 times"),
        ("schema/features/item/column", "price", "statistics|fingerprint"),
        ("schema/features/price/column", "city", "column 'city': expected a number, found string"),
        ("schema/group", "nothing", "the type of column 'nothing' is there 0 times"),
        ("labels", [{"column": 3, "is_binary": True}], "column: Input should be a valid string"),
        ("labels", [3], "cannot be read: "),
    ],
)
def test_document_that_does_not_fit_is_refused(folder: Path, path: str, value: object, message: str) -> None:
    change(folder, path, value)

    with pytest.raises(DataError, match=message):
        FeatureEncoder.load(folder)


@pytest.mark.parametrize("document", ["[" * 100_000, "[]", "3", '{"format": 1, "schema": []}'])
def test_document_that_is_none_is_refused(folder: Path, document: str) -> None:
    (folder / "encoder.json").write_text(document)

    with pytest.raises(DataError, match=r"the encoder cannot be read: .*; fit it again, or copy it again"):
        FeatureEncoder.load(folder)


def write(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def dynamic(change: Callable[[dict[str, pa.Array]], object]) -> pa.Table:
    columns = {
        "key": pa.array([1, 2], pa.uint64()),
        "row": pa.array([1, 2], pa.int64()),
        "sightings": pa.array([1, 1], pa.int32()),
        "weight": pa.array([1, 1], pa.float32()),
        "seen": pa.array([1, 1], pa.int32()),
    }
    change(columns)
    return pa.table(columns)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            dynamic(lambda columns: columns.pop("seen")),
            "expected the columns key, row, sightings, weight, seen without",
        ),
        (
            dynamic(lambda columns: columns.update(row=pa.array([1, None], pa.int64()))),
            "expected the columns .* without",
        ),
        (dynamic(lambda columns: columns.update(key=pa.array([2, 1], pa.uint64()))), "not in ascending order"),
        (dynamic(lambda columns: columns.update(row=pa.array([1, 4], pa.int64()))), "of rows beyond 0 … 3"),
        (dynamic(lambda columns: columns.update(row=pa.array([1, -1], pa.int64()))), "of rows beyond 0 … 3"),
    ],
)
def test_dynamic_ids_that_are_none_are_refused(folder: Path, table: pa.Table, message: str) -> None:
    write(folder / "dynamic_0.arrow", table)

    with pytest.raises(DataError, match=message):
        FeatureEncoder.load(folder)


@pytest.mark.parametrize("ids", [pa.array(["a", None]), pa.array([1, 2])])
def test_vocabulary_that_is_no_texts_is_refused(folder: Path, ids: pa.Array) -> None:
    write(folder / "vocabulary_0.arrow", pa.table({"id": ids}))

    with pytest.raises(DataError, match=r"vocabulary_0\.arrow holds .* nulls; a vocabulary is texts"):
        FeatureEncoder.load(folder)


def test_offsets_that_lead_out_of_their_buffer_are_found(folder: Path) -> None:
    offsets, data = pa.array([0, 7, 3], pa.int32()).buffers()[1], pa.py_buffer(b"abcdefgh")
    broken = pa.StringArray.from_buffers(2, offsets, data)
    write(folder / "vocabulary_0.arrow", pa.table({"id": broken}))

    with pytest.raises(DataError, match=r"the encoder cannot be read: .*; fit it again"):
        FeatureEncoder.load(folder)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"price": pa.float64(), "city": pa.string(), "list": pa.int64()},
            "the type of column 'item' is there 0 times",
        ),
        (
            {"item": pa.list_(pa.string()), "price": pa.float64(), "city": pa.string(), "list": pa.int64()},
            "column 'item': expected one id per row",
        ),
        (
            {"item": pa.string(), "price": pa.float64(), "city": pa.string(), "list": pa.struct({"a": pa.int8()})},
            "column 'list': expected one id per row, found struct",
        ),
    ],
)
def test_types_of_columns_that_features_cannot_read_are_refused(
    folder: Path, columns: dict[str, pa.DataType], message: str
) -> None:
    (folder / "columns.arrow").write_bytes(pa.schema(columns.items()).serialize().to_pybytes())

    with pytest.raises(DataError, match=message):
        FeatureEncoder.load(folder)

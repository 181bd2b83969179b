"""Rows of a Parquet file are read once it is known what they take in memory, whatever the file says of itself."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.export.parquet_rows import read_rows
from recmoe.export.thrift import BINARY, LIST, STRUCT, CompactReader
from tests.export.tampering import deep_columns

MANY = 2_000_000
LIMIT = 2**23


def written(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.parquet"


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "zstd"}, {"compression": "none"}, {"use_dictionary": False}, {"data_page_version": "2.0"}],
)
def test_rows_come_back_as_they_were_written(path: Path, options: dict[str, Any]) -> None:
    columns = {
        "id": pa.array(["a", "b", None, "a"], pa.large_string()),
        "word": pa.array(["x", "x", "y", None]).dictionary_encode(),
        "price": [1.5, None, 2.0, 3.0],
        "cost": pa.array(["1.50", None, "2.00", "3.00"]).cast(pa.decimal128(9, 2)),
        "tags": [["p", "q"], None, [], ["p"]],
        "seen": [[f"{number:036d}" for number in range(40_000)], None, [], ["0"]],
        "at": pa.array([1, 2, None, 4], pa.timestamp("us", tz="UTC")),
        "nothing": pa.nulls(4),
    }

    rows = read_rows(written(path, columns, row_group_size=3, **options), max_bytes=LIMIT)

    assert rows.equals(pa.table(columns))


def test_no_rows_are_read_too(path: Path) -> None:
    assert read_rows(written(path, {"id": pa.array([], pa.string())}), max_bytes=LIMIT).num_rows == 0


def repeated_text() -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(100, np.int32)), ["x" * 2**20]).cast(pa.string())


def repeated_text_in_a_list() -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, 100], pa.int32()), repeated_text())


def long_list() -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, MANY], pa.int32()), pa.array(np.zeros(MANY)))


@pytest.mark.parametrize(
    "column",
    [repeated_text(), repeated_text_in_a_list(), long_list(), pa.nulls(MANY), pa.array([b"\0" * MANY * 8])],
    ids=["text that stands for many", "in a list", "list of one value", "nulls", "packed bytes"],
)
def test_small_file_of_large_rows_is_refused(path: Path, column: pa.Array) -> None:
    written(path, {"a": column}, compression="zstd")
    assert path.stat().st_size < LIMIT / 4

    with pytest.raises(ValueError, match=r"^it takes [\d,]+ bytes in memory, and may take 8,388,608$"):
        read_rows(path, max_bytes=LIMIT)


def test_pages_are_counted_and_not_what_the_end_of_the_file_says_of_them(path: Path) -> None:
    content = written(path, {"a": long_list()}, write_statistics=False).read_bytes()
    (num_bytes,) = struct.unpack("<I", content[-8:-4])
    head, foot = content[: -8 - num_bytes], content[-8 - num_bytes :]
    few = MANY // 4 * 3
    assert len(varint(few)) == len(varint(MANY))
    path.write_bytes(head + foot.replace(varint(MANY), varint(few)))
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).num_values == few

    with pytest.raises(ValueError, match=r"^it takes 16,\d{3},\d{3} bytes in memory"):
        read_rows(path, max_bytes=LIMIT)


def varint(number: int) -> bytes:
    """As Thrift writes a whole number."""
    rest, content = number << 1, b""
    while rest > 127:
        content, rest = content + bytes([rest & 127 | 128]), rest >> 7
    return content + bytes([rest])


def test_column_deep_inside_of_others_is_refused_before_arrow_reads_it(path: Path) -> None:
    path.write_bytes(deep_columns())

    with pytest.raises(ValueError, match=r"^its columns are more than 10,000, or lie inside each other$"):
        read_rows(path, max_bytes=LIMIT)


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"a": [{"b": [[{"c": 1}]]}]}, {}, "its columns are more than 10,000, or lie inside each other"),
        (
            {"a": [1, 2]},
            {"use_dictionary": False, "column_encoding": {"a": "DELTA_BINARY_PACKED"}},
            "a page of it has the encoding 5, which recmoe does not write",
        ),
    ],
)
def test_file_that_recmoe_does_not_write_is_refused(
    path: Path, columns: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    written(path, columns, **options)

    with pytest.raises(ValueError, match=f"^{message}$"):
        read_rows(path, max_bytes=LIMIT)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (b"parquet-cpp", b"parquet-mr ", "it was written by 'parquet-mr"),
        (b"PAR1\x15\x04", b"PAR2\x15\x04", "it is cut, or no Parquet file"),
        (b"PAR1\x15\x04\x15\x10", b"PAR1\x15\x04\x15\x11", "a page of it leads out of its column"),
        (b"\x16\xbc\x01\x26\x34", b"\x16\xbc\x7f\x26\x34", "a column lies outside of it"),
    ],
)
def test_file_that_is_not_what_it_says_is_refused(path: Path, before: bytes, after: bytes, message: str) -> None:
    content = written(path, {"a": [1]}, compression="none").read_bytes()
    assert before in content
    path.write_bytes(content.replace(before, after))

    with pytest.raises(ValueError, match=message):
        read_rows(path, max_bytes=LIMIT)


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b"\x05ab", BINARY, "it is cut"),
        (b"\x1c" * 100, STRUCT, "it is more than 16 deep"),
        (b"\x29" * 100, LIST, "it is more than 16 deep"),
        (b"\xff" * 20, 6, "it holds a number of more than 64 bits"),
        (b"\x1e\x00", STRUCT, "it holds a value of type 14, which no such file has"),
    ],
)
def test_what_is_no_thrift_is_refused(content: bytes, kind: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        CompactReader(memoryview(content)).skip(kind)


def test_values_of_every_type_are_left_out() -> None:
    values = (
        b"\x11\x12\x13\x07\x15\x7f\x17" + bytes(8) + b"\x18\x02ab\x19\x21\x01\x02\x1c\x00\x1d" + bytes(16) + b"\x00"
    )
    reader = CompactReader(memoryview(values + b"\x05"))

    reader.skip(STRUCT)

    assert reader.number() == -3

"""Rows become bytes and come back as they were, or it is said that they are damaged."""

from datetime import date, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from recmoe.ranking.items.row_bytes import RowBytes

TEXTS = pa.large_list(pa.large_string())
ROWS = pa.table(
    {
        "id": pa.array([1, None, -3], pa.int16()),
        "large": pa.array([2**63 + 5, 0, None], pa.uint64()),
        "is_new": pa.array([True, None, False]),
        "price": pa.array([0.1, -0.0, None]),
        "text": pa.array(["é", None, ""], pa.large_string()),
        "words": pa.array([["red", None], None, []], TEXTS),
        "numbers": pa.array([[1, 2], [None], [3]], pa.large_list(pa.int64())),
        "marks": pa.array([[True, None], [], None], pa.large_list(pa.bool_())),
        "pages": pa.array([[["x"], None, []], None, [["y", "zz"]]], pa.large_list(TEXTS)),
        "day": pa.array([date(2026, 1, 31), None, date(1969, 1, 1)]),
        "at": pa.array([datetime(2026, 1, 31, 12), None, datetime(2027, 1, 1)], pa.timestamp("us", "UTC")),
        "cost": pa.array([Decimal("1.50"), None, Decimal("-2")], pa.decimal128(6, 2)),
        "none": pa.nulls(3, pa.float32()),
    }
)


def test_rows_of_every_type_come_back() -> None:
    codec = RowBytes(ROWS.schema)

    rows = codec.write(ROWS)

    assert codec.read(rows).equals(ROWS)
    assert codec.read([rows[2], rows[0]]).equals(ROWS.take(pa.array([2, 0])))
    assert codec.read([]).equals(ROWS.slice(0, 0))
    assert codec.write(ROWS.slice(1, 2)) == rows[1:]


def test_row_is_as_the_docstring_says() -> None:
    rows = pa.table({"item_id": pa.array([7], pa.int16()), "words": pa.array([["red", None]], TEXTS)})

    (row,) = RowBytes(rows.schema).write(rows)

    assert list(row) == [1, 1, 7, 0, 2, 0, 0, 0, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, *b"red"]


def test_row_that_is_damaged_is_refused() -> None:
    codec = RowBytes(ROWS.schema)
    row = codec.write(ROWS)[0]

    with pytest.raises(ValueError, match="a row of 3 bytes, of which the head alone has"):
        codec.read([row, row[:3]])
    with pytest.raises(ValueError, match="a row ends before its texts and lists do"):
        codec.read([row[:-1], row])
    with pytest.raises(ValueError, match="a row goes on behind its last column"):
        codec.read([row + b"1"])


def test_text_that_is_none_is_refused() -> None:
    rows = pa.table({"text": pa.array(["abc"], pa.large_string())})
    codec = RowBytes(rows.schema)
    (row,) = codec.write(rows)

    with pytest.raises(pa.ArrowInvalid, match="UTF8"):
        codec.read([row[:-1] + b"\xff"])


def test_many_rows_of_many_lengths_come_back() -> None:
    random = np.random.default_rng(0)
    lists = [[f"w{number}" for number in range(length)] for length in random.integers(0, 40, 500)]
    rows = pa.table({"item": pa.array(random.integers(0, 10, 500)), "words": pa.array(lists, TEXTS)})
    order = random.permutation(500)

    codec = RowBytes(rows.schema)
    written = codec.write(rows)

    assert codec.read([written[place] for place in order]).equals(rows.take(pa.array(order)))

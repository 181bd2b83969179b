"""Tests of keys: one id, one key, whatever the Arrow type."""

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recmoe.features.id_keys import canonical, integers, is_id_type, keys

MASK = (1 << 64) - 1


def _mix(x: int) -> int:
    """SplitMix64 written out in Python integers."""
    z = (x + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def _key_of_text(text: str) -> int:
    data = text.encode()
    key = _mix(len(data))
    for start in range(0, len(data), 8):
        key = _mix(key ^ int.from_bytes(data[start : start + 8], "little"))
    return key


def _canonical_texts(values: pa.Array) -> list[str | None]:
    ids: list[str | None] = canonical(values).cast(pa.string()).to_pylist()
    return ids


@pytest.mark.parametrize("text", ["", "a", "item-42", "12345678", "exactly16 bytes!", "more than sixteen bytes", "héé"])
def test_key_of_text_equals_a_loop_over_its_bytes(text: str) -> None:
    expected = _mix(int(text)) if text.isdigit() else _key_of_text(text)

    found = keys(pa.array(["padding", text, "9"]))[1]

    assert int(found) == expected


@pytest.mark.parametrize("number", [0, 7, -7, 10**18, 2**63 - 1, -(2**63)])
def test_integer_and_its_text_have_one_key(number: int) -> None:
    from_integer = keys(pa.array([number], pa.int64()))
    from_text = keys(pa.array([str(number)]))
    from_large_text = keys(pa.array([str(number)], pa.large_string()))

    assert int(from_integer[0]) == int(from_text[0]) == int(from_large_text[0]) == _mix(number & MASK)


@pytest.mark.parametrize(
    "text", ["007", "7.0", "+7", "-0", "-", " 7", "7a", "9223372036854775808", "12345678901234567890"]
)
def test_text_that_is_no_canonical_integer_is_an_id_of_its_own(text: str) -> None:
    values, is_integer = integers(pa.array([text, "7"]))

    assert is_integer.tolist() == [False, True]
    assert values[1] == 7
    assert int(keys(pa.array([text]))[0]) == _key_of_text(text)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([7, None], pa.uint8()), ["7", None]),
        (pa.array([2**64 - 1, 7, None], pa.uint64()), ["18446744073709551615", "7", None]),
        (pa.array([7, None], pa.uint64()), ["7", None]),
        (pa.array([7.0, float("nan"), None, -0.0]), ["7", None, None, "0"]),
        (pa.array([7.0, 0.5, float("nan")], pa.float32()), ["7", "0.5", None]),
        (pa.array(np.array([2.0, 0.5], np.float16)), ["2", "0.5"]),
        (pa.array([True, False, None]), ["true", "false", None]),
        (pa.array([Decimal("7.00"), Decimal("70.50"), Decimal("0.00")]), ["7", "70.5", "0"]),
        (pa.array([datetime.date(2026, 1, 31)]), ["2026-01-31"]),
        (pa.array([datetime.time(10, 0, 1, 500_000)]), ["10:00:01.5"]),
        (pa.nulls(2), [None, None]),
        (pa.array(["a", "", None], pa.string_view()), ["a", "", None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_ids_of_any_type_have_one_canonical_text(values: pa.Array, expected: list[str | None]) -> None:
    assert _canonical_texts(values) == expected


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_time_is_the_same_id_in_every_unit(unit: str) -> None:
    instant = datetime.datetime(2026, 1, 31, 10, tzinfo=datetime.UTC)

    local = _canonical_texts(pa.array([instant.replace(tzinfo=None)], pa.timestamp(unit)))
    zoned = _canonical_texts(pa.array([instant], pa.timestamp(unit, tz="Europe/Rome")))

    assert local == ["2026-01-31 10:00:00"]
    assert zoned == ["2026-01-31 10:00:00Z"]


def test_key_does_not_depend_on_the_slice() -> None:
    ids = pa.array(["one", "two", None, "a longer one than the others", "5"])

    assert keys(ids.slice(1, 3))[[0, 2]].tolist() == keys(ids)[[1, 3]].tolist()
    assert keys(ids.slice(5)).tolist() == []


def test_different_ids_have_different_keys() -> None:
    numbers = pa.array(np.arange(100_000))

    assert len(np.unique(np.append(keys(numbers), keys(pa.array([f"i{i}" for i in range(100_000)]))))) == 200_000


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.struct([("a", pa.int64())]), pa.duration("s"), pa.binary()])
def test_values_without_a_canonical_text_are_no_ids(kind: Any) -> None:
    assert not is_id_type(kind)
    assert is_id_type(pa.dictionary(pa.int32(), pa.string()))

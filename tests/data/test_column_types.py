"""Tests of common_type."""

import pyarrow as pa
import pytest

from recmoe.data.column_types import common_type, readable_type

SMALL_DICTIONARY = pa.dictionary(pa.int8(), pa.string())


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (pa.int32(), pa.int32(), pa.int32()),
        (pa.null(), pa.date32(), pa.date32()),
        (pa.int16(), pa.int64(), pa.int64()),
        (pa.uint8(), pa.uint32(), pa.uint32()),
        (pa.int32(), pa.uint8(), pa.int32()),
        (pa.int8(), pa.uint32(), pa.int64()),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.string(), pa.large_string(), pa.large_string()),
        (SMALL_DICTIONARY, pa.string(), pa.string()),
        (SMALL_DICTIONARY, pa.dictionary(pa.int16(), pa.string()), pa.dictionary(pa.int32(), pa.string())),
        (pa.list_(pa.int32()), pa.list_(pa.int64()), pa.list_(pa.int64())),
        (pa.list_(pa.null()), pa.large_list(pa.string()), pa.large_list(pa.string())),
        (pa.int64(), pa.uint64(), pa.int64()),
        (pa.int64(), pa.float64(), pa.float64()),
        (pa.int8(), pa.float16(), pa.float64()),
        (pa.bool_(), pa.int8(), pa.int8()),
        (pa.bool_(), pa.float32(), pa.float32()),
        (pa.list_(pa.int64()), pa.list_(pa.float64()), pa.list_(pa.float64())),
        (pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("ns")),
        (pa.timestamp("s", "UTC"), pa.timestamp("ms", "Europe/Rome"), pa.timestamp("ms", "UTC")),
        (pa.date32(), pa.date64(), pa.date32()),
        (pa.time32("s"), pa.time64("ns"), pa.time64("ns")),
        (pa.duration("s"), pa.duration("us"), pa.duration("us")),
        (pa.timestamp("s"), pa.timestamp("s", "UTC"), None),
        (pa.date32(), pa.timestamp("s"), None),
        (pa.bool_(), pa.string(), None),
        (pa.int64(), pa.string(), None),
        (SMALL_DICTIONARY, pa.int64(), None),
        (pa.dictionary(pa.int8(), pa.int64()), SMALL_DICTIONARY, None),
        (pa.list_(pa.int64()), pa.list_(pa.string()), None),
        (pa.int64(), pa.timestamp("ms"), None),
    ],
    ids=str,
)
def test_common_type_holds_both_or_there_is_none(
    first: pa.DataType, second: pa.DataType, expected: pa.DataType | None
) -> None:
    assert common_type(first, second) == expected
    assert common_type(second, first) == expected


def test_floats_beside_large_integers_must_be_integers() -> None:
    assert common_type(pa.int64(), pa.float64(), has_large_integers=True) == pa.int64()
    assert common_type(pa.list_(pa.float32()), pa.list_(pa.uint64()), has_large_integers=True) == pa.list_(pa.int64())


def test_small_dictionary_gets_room_for_the_values_of_other_files() -> None:
    assert readable_type(SMALL_DICTIONARY) == pa.dictionary(pa.int32(), pa.string())
    assert readable_type(pa.int8()) == pa.int8()


def test_views_are_read_as_large_types() -> None:
    assert readable_type(pa.string_view()) == pa.large_string()
    assert readable_type(pa.binary_view()) == pa.large_binary()

"""Arrow columns of a request become what JSON values of the same meaning become, or are refused by column and row."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recmoe.errors import RequestError
from recmoe.ranking.fitting import fitted
from recmoe.ranking.score import RankingConfig
from recmoe.ranking.values import RequestColumn, to_arrow

NAN, INF = float("nan"), float("inf")
LIMITS = RankingConfig(max_id_length=8, max_list_length=3)


def at(row: int) -> str:
    return f"x[{row}]"


@pytest.mark.parametrize(
    ("values", "type_", "is_id"),
    [
        (pa.array([1, None, 3], pa.int8()), pa.int64(), True),
        (pa.array([1.0, None, 3.0]), pa.int64(), True),
        (pa.array(["1", None, "30"]), pa.int64(), True),
        (pa.array(["1", "30"], pa.large_string()), pa.float64(), True),
        (pa.array([2**53 + 1, None]), pa.float64(), False),
        (pa.array([0.1, None], pa.float32()), pa.float64(), False),
        (pa.array([0.1, 2**40 + 1]), pa.float32(), False),
        (pa.array([True, None]), pa.bool_(), False),
        (pa.array(["a", None], pa.large_string()), pa.string(), True),
        (pa.array(["a", None]), pa.dictionary(pa.int32(), pa.string()), True),
        (pa.array([["a"], None, [], ["b", None]]), pa.list_(pa.string()), True),
        (pa.array([["1"], None], pa.large_list(pa.string())), pa.list_(pa.int64()), True),
        (pa.array([[1, 2], None], pa.list_(pa.int32(), 2)), pa.list_(pa.float64()), False),
        (pa.nulls(2), pa.list_(pa.string()), True),
        (pa.array([None, None], pa.string()), pa.float64(), False),
        (pa.array([1, 2]), pa.null(), False),
        (pa.array(["2026-01-31T10:00:00"]), pa.timestamp("us"), False),
        (pa.array(["1.25"]), pa.decimal128(5, 2), False),
        (pa.array([1.25, 7.0]), pa.decimal128(5, 2), False),
    ],
    ids=str,
)
def test_arrow_becomes_what_json_becomes(values: pa.Array, type_: pa.DataType, is_id: bool) -> None:
    expected = to_arrow(values.to_pylist(), type_, at, is_id=is_id)

    found = fitted(values, RequestColumn(type_, is_id), at, LIMITS)

    assert found.type == expected.type
    assert found.equals(expected)


def test_time_keeps_its_instant() -> None:
    days = pa.array(["2026-01-31"]).cast(pa.date32())

    found = fitted(days, RequestColumn(pa.date64(), is_id=False), at, LIMITS)

    assert found.equals(days.cast(pa.date64()))


def test_rows_of_a_slice_are_its_own() -> None:
    values = pa.array([["a"], ["b", "c"], None, ["d"]]).slice(1)

    found = fitted(values, RequestColumn(pa.list_(pa.string()), is_id=True), at, LIMITS)

    assert found.to_pylist() == [["b", "c"], None, ["d"]]


def test_values_behind_a_null_are_not_read() -> None:
    values = pa.array(np.array([1.0, NAN]), mask=np.array([False, True]))

    assert fitted(values, RequestColumn(pa.float64(), is_id=False), at, LIMITS).to_pylist() == [1.0, None]


@pytest.mark.parametrize(
    ("values", "type_", "is_id", "message"),
    [
        (pa.array([None, "abc"]), pa.float64(), False, r'x[1]: expected a finite number, found "abc", of type string'),
        (pa.array([1.0, NAN, INF]), pa.float64(), False, "x[1]: expected a finite number, found NaN"),
        (pa.array([1.0, 2.5]), pa.int64(), True, "x[1]: expected an integer (int64), found 2.5"),
        (pa.array([1, 300, 400]), pa.int8(), True, "x[1]: expected an integer (int8), found 300"),
        (pa.array([2**64 - 1], pa.uint64()), pa.int64(), True, "x[0]: expected an integer (int64), found 1844674407"),
        (pa.array(["1", "007"]), pa.int64(), True, 'x[1]: expected an integer (int64), found "007"'),
        (pa.array(["1"]), pa.float64(), False, 'x[0]: expected a finite number, found "1", of type string'),
        (pa.array([5]), pa.string(), True, "x[0]: expected a string, found 5, of type int64"),
        (pa.array([True]), pa.float64(), False, "x[0]: expected a finite number, found true, of type bool"),
        (pa.array([1]), pa.bool_(), False, "x[0]: expected true or false, found 1, of type int64"),
        (pa.array(["a"]), pa.list_(pa.string()), True, 'x[0]: expected a list, found "a", of type string'),
        (pa.array([["a"]]), pa.string(), True, "x[0]: expected a string, found a list, of type list<item: string>"),
        (pa.array([["1"], None, ["2", "x"]]), pa.list_(pa.int64()), True, "x[2][1]: expected an integer (int64), fo"),
        (pa.array(["soon"]), pa.timestamp("s"), False, "x[0]: expected a time in ISO 8601 (timestamp[s]), found"),
        (
            pa.array([0], pa.timestamp("s", "UTC")),
            pa.timestamp("s"),
            False,
            'x[0]: expected a time in ISO 8601 (timestamp[s]), found "1970-01-01 00:00:00+00:00", of type timestamp[s',
        ),
        (pa.array(["short", "a" * 9]), pa.string(), True, "x[1]: has 9 characters, an id has at most 8; shorten it"),
        (pa.array([["a"], ["b", "é" * 9]]), pa.list_(pa.string()), True, "x[1][1]: has 9 characters, an id has at"),
        (pa.array([None, [1] * 4]), pa.list_(pa.int64()), True, "x[1]: is a list of 4, at most 3 are read; send the"),
    ],
)
def test_value_that_does_not_fit_is_named(values: pa.Array, type_: pa.DataType, is_id: bool, message: str) -> None:
    with pytest.raises(RequestError) as raised:
        fitted(values, RequestColumn(type_, is_id), at, LIMITS)

    assert str(raised.value).startswith(message)


def test_ids_in_one_string_are_measured_one_by_one() -> None:
    column = RequestColumn(pa.string(), is_id=True, separator="|")

    fitted(pa.array(["abcdefgh|abcdefgh"]), column, at, LIMITS)

    with pytest.raises(RequestError, match=r"x\[1\]: is a list of 4, at most 3 are read"):
        fitted(pa.array(["a", "a|b|c|d"]), column, at, LIMITS)


@pytest.mark.parametrize("row", [0, 1, 500, 998, 999])
def test_first_value_that_does_not_fit_is_found_among_many(row: int) -> None:
    values: list[Any] = [1.0] * 1000
    values[row:] = [NAN] * (1000 - row)

    with pytest.raises(RequestError, match=rf"^x\[{row}\]: expected a finite number, found NaN$"):
        fitted(pa.array(values), RequestColumn(pa.float64(), is_id=False), at, LIMITS)

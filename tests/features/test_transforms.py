"""Tests of the functions of one numeric column."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from recmoe.features.transforms import as_floats, bucketize, clip, fill, is_number_type, position, signed_log1p

NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([1, None], pa.int8()), [1.0, NAN]),
        (pa.array([2**53 + 1], pa.int64()), [2.0**53]),
        (pa.array([1.5, NAN, None], pa.float32()), [1.5, NAN, NAN]),
        (pa.array([True, False, None]), [1.0, 0.0, NAN]),
        (pa.array([Decimal("1.25")]), [1.25]),
        (pa.array([3, 4, 3, None]).dictionary_encode(), [3.0, 4.0, 3.0, NAN]),
        (pa.nulls(1), [NAN]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_numbers_of_any_type_become_floats(values: pa.Array, expected: list[float]) -> None:
    assert is_number_type(values.type)
    np.testing.assert_array_equal(as_floats(pa.chunked_array([values])), expected)


def test_chunks_are_joined_and_none_is_empty() -> None:
    column = pa.chunked_array([pa.array([1, 2]), pa.array([3])])

    assert as_floats(column).tolist() == [1.0, 2.0, 3.0]
    assert as_floats(column.slice(1, 1)).tolist() == [2.0]
    assert as_floats(pa.chunked_array([], pa.int64())).tolist() == []


def test_fill_and_clip_leave_what_needs_nothing() -> None:
    x = np.array([NAN, 5.0, -5.0])

    assert fill(x, 1.0).tolist() == [1.0, 5.0, -5.0]
    assert fill(x, None) is x
    np.testing.assert_array_equal(clip(x, (-1.0, 2.0)), [NAN, 2.0, -1.0])
    assert clip(x, None) is x


def test_signed_log1p_is_odd() -> None:
    x = np.array([np.e - 1, 1 - np.e, 0.0])

    np.testing.assert_allclose(signed_log1p(x), [1.0, -1.0, 0.0])


def test_bucket_holds_its_left_edge_and_the_outer_ones_what_lies_beyond() -> None:
    x = np.array([-9.0, 0.0, 0.9, 1.0, 3.9, 4.0, 99.0])

    assert bucketize(x, [0.0, 1.0, 4.0]).tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_position_is_the_bucket_and_the_share_crossed() -> None:
    x = np.array([-9.0, 0.0, 0.5, 1.0, 2.5, 4.0, 99.0, NAN])

    np.testing.assert_allclose(position(x, [0.0, 1.0, 4.0]), [0.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.0, NAN])


def test_piecewise_linear_encoding_follows_from_the_position() -> None:
    edges = np.array([0.0, 1.0, 4.0, 5.0])
    x = np.array([0.25, 2.5, 4.5])
    from_the_paper = np.clip((x[:, None] - edges[:-1]) / np.diff(edges), 0.0, 1.0)

    from_the_position = np.clip(position(x, list(edges))[:, None] - np.arange(3), 0.0, 1.0)

    np.testing.assert_allclose(from_the_position, from_the_paper)


def test_text_is_no_number() -> None:
    assert not is_number_type(pa.string())
    assert not is_number_type(pa.timestamp("s"))
    assert not is_number_type(pa.dictionary(pa.int8(), pa.string()))

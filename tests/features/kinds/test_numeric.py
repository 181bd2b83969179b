"""Tests of a numeric feature's column and its forms."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recmoe.features.kinds import NumericFeature
from recmoe.features.kinds.numeric import bucket_form, read_and_count, read_number, value_form, vector_form
from recmoe.features.statistics import NumericStatistics

NUMBERS = NumericStatistics(mean=5.0, std=2.0, edges=(1.0, 4.0, 9.0))
NAN = float("nan")


def _read(values: list[Any], **fields: Any) -> list[float]:
    read: list[float] = read_number(pa.table({"x": values}), "x", NumericFeature(**fields)).tolist()
    return read


def test_number_is_filled_then_clipped_then_compressed() -> None:
    read = _read([None, 0.0, -50.0, NAN], missing=99.0, clip=(-9.0, 9.0), log1p=True)

    assert read == pytest.approx([np.log(10), 0.0, -np.log(10), np.log(10)])


def test_missing_number_stays_missing_where_nothing_stands_for_it() -> None:
    np.testing.assert_array_equal(_read([1, None]), [1.0, NAN])


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 1e300])
def test_number_too_large_for_a_float_is_missing_unless_clipped_or_compressed(value: float) -> None:
    np.testing.assert_array_equal(_read([1.0, value]), [1.0, NAN])
    assert _read([1.0, value], missing=3.0) == [1.0, 3.0]
    assert _read([1.0, value], missing=3.0, clip=(0.0, 2.0)) == [1.0, 0.0 if value < 0 else 2.0]
    assert read_and_count(pa.table({"x": [1.0, value, None]}), "x", NumericFeature())[1] == 1


def test_large_number_is_let_through_by_log1p() -> None:
    assert _read([1e300], log1p=True) == pytest.approx([300 * np.log(10)])
    np.testing.assert_array_equal(_read([float("inf")], log1p=True), [NAN])


def test_number_far_beyond_the_training_data_stays_finite() -> None:
    narrow = NumericStatistics(mean=0.0, std=1e-9, edges=())

    value = value_form(np.array([1e35]), NumericFeature(), narrow)

    assert np.isfinite(value).all()


def test_short_float_is_a_number() -> None:
    table = pa.table({"x": pa.array(np.array([1.5, 2.0], np.float16))})

    assert read_number(table, "x", NumericFeature()).tolist() == [1.5, 2.0]


def test_value_is_a_z_score_and_the_mean_where_missing() -> None:
    x = np.array([9.0, 5.0, NAN])

    assert value_form(x, NumericFeature(), NUMBERS).tolist() == [2.0, 0.0, 0.0]
    assert value_form(x, NumericFeature(zscore=False), NUMBERS).tolist() == [9.0, 5.0, 5.0]


def test_bucket_has_a_row_and_missing_has_row_zero() -> None:
    assert bucket_form(np.array([0.0, 1.0, 4.0, 99.0, NAN]), NUMBERS).tolist() == [1, 1, 2, 2, 0]


def test_vector_is_the_position_and_that_of_the_mean_where_missing() -> None:
    assert vector_form(np.array([0.0, 2.5, 99.0, NAN]), NUMBERS).tolist() == pytest.approx([0.0, 0.5, 2.0, 1.2])

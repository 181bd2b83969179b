"""Tests of a numeric feature's column and its forms."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recmoe.errors import DataError
from recmoe.features.numeric import bucket_form, read_number, value_form, vector_form
from recmoe.features.schema import NumericFeature
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


def test_infinite_number_is_named_with_its_row_unless_clipped() -> None:
    with pytest.raises(
        DataError, match="column 'x' of feature 'x' holds -inf in row 1, which is too large for a float; mend"
    ):
        _read([1.0, float("-inf")])
    assert _read([1.0, float("-inf")], clip=(0.0, 1.0)) == [1.0, 0.0]


def test_number_beyond_a_float_is_named_with_its_row() -> None:
    with pytest.raises(DataError, match=r"column 'x' of feature 'x' holds 1e\+300 in row 1, which is too large"):
        value_form(np.array([0.0, 1e300]), "x", NumericFeature(), NUMBERS)


def test_value_is_a_z_score_and_the_mean_where_missing() -> None:
    x = np.array([9.0, 5.0, NAN])

    assert value_form(x, "x", NumericFeature(), NUMBERS).tolist() == [2.0, 0.0, 0.0]
    assert value_form(x, "x", NumericFeature(zscore=False), NUMBERS).tolist() == [9.0, 5.0, 5.0]


def test_bucket_has_a_row_and_missing_has_row_zero() -> None:
    assert bucket_form(np.array([0.0, 1.0, 4.0, 99.0, NAN]), NUMBERS).tolist() == [1, 1, 2, 2, 0]


def test_vector_is_the_position_and_that_of_the_mean_where_missing() -> None:
    assert vector_form(np.array([0.0, 2.5, 99.0, NAN]), NUMBERS).tolist() == pytest.approx([0.0, 0.5, 2.0, 1.2])

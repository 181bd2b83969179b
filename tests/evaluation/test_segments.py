"""Rows of a batch by segment, as slices of a report name them."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recmoe.errors import EvaluationError
from recmoe.evaluation.evaluate import slice_masks
from recmoe.evaluation.segments import segmented
from recmoe.moe.segment_use import ALL


@pytest.mark.parametrize(
    "column_B",
    [
        np.array(["tv", None, "phone", "tv"], dtype=object),
        np.array([3.0, np.nan, 2.5, 3.0]),
        np.array([True, False, True, True]),
        np.array([1, 2, 1, 1]),
        np.array(["2024-01-01", "2024-01-02", "2024-01-01", "NaT"], dtype="datetime64[ns]"),
        np.array([1, 1.0, "1", None], dtype=object),
    ],
    ids=["texts", "numbers", "booleans", "integers", "times", "names of several values"],
)
def test_rows_of_a_segment_are_those_of_the_slice(column_B: NDArray[Any]) -> None:
    expected = {f"d={value}": np.flatnonzero(mask_B).tolist() for value, mask_B in slice_masks(column_B, max_values=9)}

    found = segmented({"d": column_B}, 4)

    rows = {name: sorted(rows_N.tolist()) for name, rows_N in found.first_rows(4).items()}
    assert rows == {ALL: [0, 1, 2, 3], **expected}


def test_row_lies_in_a_segment_of_every_column() -> None:
    found = segmented({"a": np.array([1, 2]), "b": np.array([1, 1])}, 2)

    assert found.names == (ALL, "a=1", "a=2", "b=1")
    assert found.num_rows_S.tolist() == [2, 1, 1, 2]


def test_worker_without_rows_has_no_pairs() -> None:
    found = segmented({"a": np.array([], dtype=object)}, 0)

    assert found.names == (ALL,)
    assert found.first_rows(5) == {}


def test_lists_are_no_slices() -> None:
    lists_B = np.empty(1, dtype=object)
    lists_B[0] = np.array(["red", "blue"])

    with pytest.raises(EvaluationError, match=r"slice column tags holds lists, .*; take it out of evaluation\.slices"):
        segmented({"tags": lists_B}, 1)

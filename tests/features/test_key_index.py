"""Tests of KeyIndex."""

import numpy as np
import pytest

from recmoe.features.id_keys import mix64
from recmoe.features.key_index import KeyIndex


@pytest.mark.parametrize("num_keys", [0, 1, 2, 1000])
def test_keys_find_their_rows_and_others_row_zero(num_keys: int) -> None:
    keys = mix64(np.arange(2 * num_keys + 3, dtype=np.uint64))

    rows = KeyIndex(keys[:num_keys]).rows(keys)

    assert rows.tolist() == [*range(1, num_keys + 1), *[0] * (num_keys + 3)]


def test_keys_that_start_alike_are_told_apart() -> None:
    keys = np.array([5, 3, 4, 1], np.uint64)

    rows = KeyIndex(keys).rows(np.array([1, 2, 3, 4, 5, 6, 0], np.uint64))

    assert rows.tolist() == [4, 0, 2, 3, 1, 0, 0]


def test_extreme_keys_are_found_only_where_they_are() -> None:
    extremes = np.array([0, 2**64 - 1], np.uint64)

    assert KeyIndex(extremes).rows(extremes).tolist() == [1, 2]
    assert KeyIndex(np.array([7], np.uint64)).rows(extremes).tolist() == [0, 0]


def test_first_of_equal_keys_counts() -> None:
    index = KeyIndex(np.array([9, 4, 9], np.uint64))

    assert index.rows(np.array([9, 4], np.uint64)).tolist() == [1, 2]

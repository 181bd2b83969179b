"""Tests of KeyCounter."""

import numpy as np
import pyarrow as pa
import pytest

from recmoe.features.arrow_ids import id_values
from recmoe.features.id_keys import UInt64s, canonical, keys
from recmoe.features.key_counter import KeyCounter

NONE: UInt64s = np.zeros(0, np.uint64)


def counts_of(counter: KeyCounter, *ids: int | str) -> list[int]:
    found = dict(zip(*(column.tolist() for column in counter.finish()), strict=True))
    return [found.get(int(keys(canonical(pa.array([id_])))[0]), 0) for id_ in ids]


def test_ids_of_several_chunks_and_types_add_up() -> None:
    counter = KeyCounter(limit=100, never_forgotten=NONE)

    counter.add(id_values(pa.array([7, 8, 8, None])))
    counter.add(id_values(pa.array(["7", "7", "red", None])))
    counter.add(id_values(pa.array([9.0, float("nan")])))
    counter.add(id_values(pa.DictionaryArray.from_arrays(pa.array([1, 1, None]), pa.array(["7", "red", None]))))
    counter.add_repeated("red", 2)
    counter.add_repeated("blue", 0)

    assert counts_of(counter, 7, 8, 9, "red", "blue") == [3, 2, 1, 5, 0]
    assert len(counter.finish()[0]) == 4
    assert (np.diff(counter.finish()[0].astype(object)) > 0).all()


def test_nothing_counted_is_nothing() -> None:
    assert [len(column) for column in KeyCounter(limit=1, never_forgotten=NONE).finish()] == [0, 0]


def test_counts_merged_on_the_way_equal_counts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.random.default_rng(0).integers(0, 50, 400)
    monkeypatch.setattr("recmoe.features.key_counter._MERGE_AT", 60)
    counter = KeyCounter(limit=100, never_forgotten=NONE)

    for part in np.split(ids, 20):
        counter.add(id_values(pa.array(part)))

    assert counts_of(counter, *range(50)) == np.bincount(ids, minlength=50).tolist()


def test_beyond_the_limit_rare_ids_are_forgotten_and_those_that_hold_rows_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("recmoe.features.key_counter._MERGE_AT", 60)
    holder = keys(pa.array([-1]))
    counter = KeyCounter(limit=100, never_forgotten=holder)

    for first in range(0, 3000, 30):
        # Three ids that are frequent, one that holds a row and was seen once, and a stream of ids seen once.
        counter.add(id_values(pa.array([1, 2, 3] * 2 + [*range(100 + first, 130 + first)])))
        if first == 0:
            counter.add_repeated(-1, 1)

    assert counts_of(counter, 1, 2, 3, -1) == [200, 200, 200, 1]
    assert len(counter.finish()[0]) < 300

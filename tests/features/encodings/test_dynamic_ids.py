"""Tests of DynamicIds: who gets a row, who keeps it, who loses it."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recmoe.features.encodings import DynamicConfig
from recmoe.features.encodings.dynamic import DynamicIds
from recmoe.features.id_keys import keys


def update(ids: DynamicIds | None, seen: str, **config: Any) -> DynamicIds:
    """The ids after a period that has seen some letters."""
    settings = DynamicConfig(**{"capacity": 2, "half_life": 1.0, **config})
    counts = Counter(seen)
    keys_m = keys(pa.array(list(counts), pa.string()))
    order = np.argsort(keys_m)
    before = DynamicIds.empty(settings.capacity) if ids is None else ids
    return before.updated(keys_m[order], np.array(list(counts.values()), np.int64)[order], settings)


def rows(ids: DynamicIds, letters: str = "abc") -> list[int]:
    found: list[int] = ids.rows(pa.array(list(letters)), name="").tolist()
    return found


def test_example_of_the_docstring() -> None:
    first = update(None, "aaabbc")
    second = update(first, "cccb")

    assert (rows(first), rows(second)) == ([1, 2, 0], [0, 2, 1])
    assert first.num_rows == second.num_rows == 3
    assert second.last is not None
    assert (second.last.number, second.last.rows_used, second.last.admitted, second.last.evicted) == (2, 2, 1, 1)
    assert (second.last.waiting, second.last.sightings, second.last.unknown_share) == (1, 4, 0.0)
    assert first.last is not None
    assert first.last.unknown_share == pytest.approx(1 / 6)


def test_sightings_of_several_updates_add_up_to_an_admission() -> None:
    ids = update(None, "a", admit_after=3)
    ids = update(ids, "a", admit_after=3)
    before = rows(ids, "a")
    ids = update(ids, "a", admit_after=3)

    assert (before, rows(ids, "a")) == ([0], [1])


def test_holder_wins_a_tie() -> None:
    ids = update(None, "aabb")

    ids = update(ids, "aabbccdd", half_life=1e9)
    after_tie = rows(ids, "abcd")

    assert sorted(after_tie) == [0, 0, 1, 2]
    assert after_tie[2:] == [0, 0]


def test_least_recent_evicts_whom_no_one_has_seen_for_longest() -> None:
    ids = update(None, "a" * 100 + "bb", evict="least_recent")
    ids = update(ids, "bbcc", evict="least_recent")

    assert rows(ids)[0] == 0
    assert sorted(rows(ids)[1:]) == [1, 2]


def test_least_frequent_forgets_by_halves() -> None:
    ids = update(None, "aaaaaaaabb")
    # a has 8, then 4, 2, 1; c has 2 in the update that lets it in.
    seen = []
    for letters in ("bb", "bb", "bbcc"):
        ids = update(ids, letters)
        seen.append(rows(ids)[0] > 0)

    assert seen == [True, True, False]


def test_id_is_forgotten_after_a_time_even_where_there_is_room() -> None:
    ids = update(None, "aabb", forget_after=2)
    ids = update(ids, "b", forget_after=2)
    kept = rows(ids)
    ids = update(ids, "b", forget_after=2)

    assert (kept[0] > 0, rows(ids)[0]) == (True, 0)
    assert ids.last is not None
    assert (ids.last.rows_used, ids.last.evicted, ids.last.waiting) == (1, 1, 0)


def test_id_that_lost_its_row_comes_back_to_any_row() -> None:
    ids = update(None, "aabb")
    ids = update(ids, "ccccdddd")
    ids = update(ids, "a" * 9)

    assert rows(ids, "a")[0] > 0


def test_other_capacity_keeps_the_rows_that_fit() -> None:
    ids = update(None, "aaaabbbccd", capacity=4, admit_after=1)

    larger = update(ids, "e", capacity=8, admit_after=1)
    smaller = update(ids, "ddddd", capacity=2, admit_after=1, half_life=1e9)

    assert rows(ids, "abcd") == [1, 2, 3, 4]
    assert (rows(larger, "abcde"), larger.num_rows) == ([1, 2, 3, 4, 5], 9)
    # d, the most frequent by now, takes the row of b.
    assert (rows(smaller, "abcd"), smaller.num_rows) == ([1, 0, 0, 2], 3)


def test_those_that_wait_are_no_more_than_the_rows() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"

    ids = update(None, letters + "aabbcc", capacity=3, admit_after=2)

    assert sorted(rows(ids, "abc")) == [1, 2, 3]
    assert len(ids.keys_n) == 6


def test_rows_are_never_shared_over_many_updates() -> None:
    random = np.random.default_rng(0)
    config = DynamicConfig(capacity=50, admit_after=2, half_life=3.0)
    ids = DynamicIds.empty(50)
    moved = 0

    for period in range(30):
        seen = random.zipf(1.3, 400) % 200 + period * 20
        keys_m, counts_m = np.unique(keys(pa.array(seen)), return_counts=True)
        before = dict(zip(*(column.tolist() for column in ids.holders()), strict=True))
        ids = ids.updated(keys_m, counts_m, config)
        after = dict(zip(*(column.tolist() for column in ids.holders()), strict=True))
        assert len(set(after.values())) == len(after) <= 50
        assert all(1 <= row <= 50 for row in after.values())
        moved += sum(before[key] != row for key, row in after.items() if key in before)
        assert ids.last is not None
        assert ids.last.admitted - ids.last.evicted == len(after) - len(before)

    assert moved == 0
    assert len(after) == 50


def test_unknown_and_null_are_row_zero() -> None:
    ids = update(None, "aa")

    assert ids.rows(pa.array(["a", "z", None]), name="").tolist() == [1, 0, 0]
    assert DynamicIds.empty(3).rows(pa.array([1, None]), name="").tolist() == [0, 0]


@pytest.mark.parametrize("evict", ["least_frequent", "least_recent"])
def test_update_depends_on_the_counts_and_not_on_the_parts_they_come_in(
    evict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recmoe.features.encodings.dynamic.CUT_AT", 30)
    random = np.random.default_rng(0)
    config = DynamicConfig(capacity=20, admit_after=2, half_life=2.0, evict=evict)  # type: ignore[arg-type]
    whole, in_parts = DynamicIds.empty(20), DynamicIds.empty(20)

    for period in range(6):
        seen = random.zipf(1.3, 600) % 300 + period * 15
        keys_m, counts_m = np.unique(keys(pa.array(seen)), return_counts=True)
        places = np.array_split(random.permutation(len(keys_m)), 7)
        parts = [pa.table({"key": keys_m[part], "count": counts_m[part]}) for part in places]
        # Cut in two processes, then together.
        halves = [in_parts.candidates(half, config) for half in (parts[:3], parts[3:])]
        found = in_parts.candidates(halves, config)
        whole = whole.updated(keys_m, counts_m, config)
        in_parts = in_parts.updated(
            found["key"].to_numpy(), found["count"].to_numpy(), config, num_sightings=int(counts_m.sum())
        )
        assert found.num_rows < len(keys_m)
        assert in_parts.digest == whole.digest
        assert whole.last is not None
        assert in_parts.last == whole.last


def test_period_without_a_sighting_leaves_rows_as_they_are() -> None:
    config = DynamicConfig(capacity=2, admit_after=1)
    ids = update(None, "aab", admit_after=1)

    found = ids.candidates([], config)
    later = ids.updated(found["key"].to_numpy(), found["count"].to_numpy(), config)

    assert rows(later) == rows(ids) == [1, 2, 0]
    assert later.last is not None
    assert (later.last.sightings, later.last.unknown_share) == (0, 0.0)

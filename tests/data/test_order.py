"""Tests of Cursor and EpochOrder."""

import itertools

import numpy as np
import pytest

from recmoe.data.order import Cursor, EpochOrder, RowGroup, stable_order

SEVEN_GROUPS = [RowGroup(file=0, index=i, first_row=10 * i, num_rows=10) for i in range(7)]


def _rows(order: EpochOrder, intervals: tuple[tuple[int, int], ...]) -> list[int]:
    """Rows of the file at some positions."""
    found: list[int] = []
    for window, rows in order.visits(intervals):
        file_rows = np.concatenate([group.first_row + np.arange(group.num_rows) for group in order.windows[window]])
        found += file_rows[rows].tolist()
    return found


def test_shares_are_equal_and_contiguous() -> None:
    cursor = Cursor(0, ((0, 10),))

    shares = [cursor.share(rank=rank, world_size=3) for rank in range(3)]

    assert shares == [((0, 3),), ((3, 6),), ((6, 9),)]
    assert cursor.num_steps(world_size=3, batch_size=2) == 1


def test_advance_takes_the_front_of_every_share() -> None:
    cursor = Cursor(0, ((0, 10),))

    after = cursor.advance(1, world_size=2, batch_size=2)

    assert after == Cursor(0, ((2, 5), (7, 10)))
    assert [after.share(rank=rank, world_size=2) for rank in range(2)] == [((2, 5),), ((7, 10),)]
    assert [after.share(rank=rank, world_size=3) for rank in range(3)] == [((2, 4),), ((4, 5), (7, 8)), ((8, 10),)]


def test_advance_by_parts_equals_advance_at_once() -> None:
    cursor = Cursor(3, ((5, 40), (60, 107)))

    parts = cursor.advance(2, world_size=3, batch_size=4).advance(3, world_size=3, batch_size=4)

    assert parts == cursor.advance(5, world_size=3, batch_size=4)


def test_advance_to_the_end_leaves_less_than_one_step() -> None:
    cursor = Cursor(0, ((0, 107),))
    num_steps = cursor.num_steps(world_size=3, batch_size=4)

    end = cursor.advance(num_steps, world_size=3, batch_size=4)

    assert num_steps == 8
    assert end.num_rows == 107 - 8 * 3 * 4
    assert end.num_steps(world_size=3, batch_size=4) == 0


def test_advance_beyond_the_end_is_a_programmers_error() -> None:
    cursor = Cursor(0, ((0, 10),))

    with pytest.raises(AssertionError):
        cursor.advance(3, world_size=2, batch_size=2)


def test_windows_hold_at_least_the_rows_shuffled_together() -> None:
    order = EpochOrder(SEVEN_GROUPS, seed=0, epoch=0, shuffle_rows=25)

    assert [len(window) for window in order.windows] == [3, 3, 1]
    assert order.starts.tolist() == [0, 30, 60, 70]


@pytest.mark.parametrize("shuffle_rows", [None, 1, 25, 1000])
def test_epoch_is_a_permutation_of_all_rows(shuffle_rows: int | None) -> None:
    order = EpochOrder(SEVEN_GROUPS, seed=0, epoch=0, shuffle_rows=shuffle_rows)

    assert sorted(_rows(order, ((0, 70),))) == list(range(70))


@pytest.mark.parametrize("shuffle_block", [4, 10, 7])
def test_blocks_of_rows_stay_together_and_no_row_is_lost(shuffle_block: int) -> None:
    order = EpochOrder(SEVEN_GROUPS, seed=1, epoch=0, shuffle_rows=1000, shuffle_block=shuffle_block)

    rows = _rows(order, ((0, 70),))

    assert sorted(rows) == list(range(70))
    assert rows != sorted(rows)
    joins = sum(after == before + 1 for before, after in itertools.pairwise(rows))
    assert joins >= 70 - 70 // shuffle_block - 1
    assert _rows(order, ((0, 25),)) + _rows(order, ((25, 70),)) == rows


def test_order_without_shuffling_is_that_of_the_files() -> None:
    order = EpochOrder(SEVEN_GROUPS, seed=0, epoch=0, shuffle_rows=None)

    assert _rows(order, ((3, 9), (25, 33))) == [*range(3, 9), *range(25, 33)]


def test_intervals_give_the_same_rows_as_the_whole_epoch() -> None:
    order = EpochOrder(SEVEN_GROUPS, seed=0, epoch=0, shuffle_rows=25)
    epoch = _rows(order, ((0, 70),))

    part = _rows(order, ((3, 9), (12, 33), (59, 70)))

    assert part == epoch[3:9] + epoch[12:33] + epoch[59:70]


@pytest.mark.parametrize(("seed", "epoch"), [(1, 0), (0, 1)])
def test_order_changes_with_the_seed_and_the_epoch(seed: int, epoch: int) -> None:
    first = EpochOrder(SEVEN_GROUPS, seed=0, epoch=0, shuffle_rows=25)
    again = EpochOrder(SEVEN_GROUPS, seed=0, epoch=0, shuffle_rows=25)
    other = EpochOrder(SEVEN_GROUPS, seed=seed, epoch=epoch, shuffle_rows=25)

    rows = [_rows(order, ((0, 70),)) for order in (first, again, other)]

    assert rows[0] == rows[1]
    assert rows[0] != rows[2]


def test_order_is_pinned() -> None:
    # A checkpoint written today must go on with the same rows on another machine and version of numpy.
    order = EpochOrder(SEVEN_GROUPS[:1], seed=7, epoch=2, shuffle_rows=10)

    assert order.rows(0, 0, 10).tolist() == [7, 9, 1, 6, 4, 0, 8, 5, 3, 2]


@pytest.mark.parametrize("num_bits", [3, 32, 34, 64])
def test_order_of_random_bits_is_that_of_a_stable_sort(num_bits: int) -> None:
    # Few different numbers, some of which differ in their lower half only, and one number alone or none.
    upper = np.random.default_rng(0).integers(0, 1 << min(num_bits, 62), 3000, dtype=np.uint64)
    lower = np.random.default_rng(1).integers(0, 3, 3000, dtype=np.uint64)

    for bits in (upper, upper << np.uint64(64 - num_bits), (upper << np.uint64(32)) | lower, upper[:1], upper[:0]):
        order = stable_order(bits)

        assert order.dtype == np.int64
        assert order.tolist() == np.argsort(bits, kind="stable").tolist()

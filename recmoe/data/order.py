"""Cursor and EpochOrder: where each row stands in an epoch, whatever the number of ranks."""

# N rows of the epoch, R rows that remain, W ranks, B rows per batch

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Interval = tuple[int, int]
"""Half-open: from the first position to one past the last."""


@dataclass(frozen=True)
class RowGroup:
    """One row group of one file."""

    file: int
    """Index of the file in the stream."""
    index: int
    """Index of the row group in its file."""
    first_row: int
    """Row of the file with which the group begins."""
    num_rows: int


@dataclass(frozen=True)
class Cursor:
    """What remains of an epoch: intervals of positions in its shuffled order.

    It says nothing of ranks. The intervals are laid end to end and cut into W equal shares, one per
    rank; each step takes B rows from the front of every share. With N = 10, W = 2, B = 2::

        start            [0 … 10)            shares [0 … 5) [5 … 10)
        after one step   [2 … 5) [7 … 10)    W = 2: the same shares go on
                                             W = 1: one share of 6 rows
                                             W = 3: shares {2, 3} {4, 7} {8, 9}
    """

    epoch: int
    remaining: tuple[Interval, ...]

    @property
    def num_rows(self) -> int:
        return sum(stop - start for start, stop in self.remaining)

    def num_steps(self, *, world_size: int, batch_size: int) -> int:
        """Steps that every rank can take with full batches: R // (W * B)."""
        assert world_size > 0
        assert batch_size > 0
        return self.num_rows // (world_size * batch_size)

    def share(self, *, rank: int, world_size: int) -> tuple[Interval, ...]:
        """Positions of one rank: R // W of them, in order."""
        assert 0 <= rank < world_size
        num_rows = self.num_rows // world_size
        return _cut(self.remaining, rank * num_rows, (rank + 1) * num_rows)

    def first(self, num_rows: int) -> tuple[Interval, ...]:
        """Positions of the first rows that remain."""
        return _cut(self.remaining, 0, num_rows)

    def advance(self, num_steps: int, *, world_size: int, batch_size: int) -> "Cursor":
        """What remains after some more steps of all ranks."""
        assert 0 <= num_steps <= self.num_steps(world_size=world_size, batch_size=batch_size)
        num_rows = self.num_rows // world_size
        left: list[Interval] = []
        for rank in range(world_size):
            left += _cut(self.remaining, rank * num_rows + num_steps * batch_size, (rank + 1) * num_rows)
        left += _cut(self.remaining, world_size * num_rows, self.num_rows)
        return Cursor(self.epoch, _joined(left))


class EpochOrder:
    """All rows of an epoch in windows, and each window's permutation.

    Row groups are permuted by (seed, epoch); consecutive ones make a window of at least
    ``shuffle_rows`` rows, the last one of what is left; the rows of a window are permuted by
    (seed, epoch, window), blocks of ``shuffle_block`` rows that follow each other staying together.
    Positions 0 … N run through the windows. Without ``shuffle_rows`` nothing moves and each row group is a window.
    """

    def __init__(
        self, groups: Sequence[RowGroup], *, seed: int, epoch: int, shuffle_rows: int | None, shuffle_block: int = 1
    ) -> None:
        self.shuffle_block = shuffle_block
        self.seed = seed
        self.epoch = epoch
        self.is_shuffled = shuffle_rows is not None
        if shuffle_rows is None:
            self.windows: tuple[tuple[RowGroup, ...], ...] = tuple((group,) for group in groups)
        else:
            permuted = [groups[i] for i in _permutation(len(groups), seed, epoch, 0)]
            self.windows = tuple(_windows(permuted, shuffle_rows))
        sizes = [sum(group.num_rows for group in window) for window in self.windows]
        self.starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])

    def rows(self, window: int, start: int, stop: int) -> NDArray[np.int64]:
        """Rows of a window, counted from its first row group, that stand at start … stop in its order."""
        if not self.is_shuffled:
            return np.arange(start, stop, dtype=np.int64)
        num_rows = int(self.starts[window + 1] - self.starts[window])
        num_blocks = -(-num_rows // self.shuffle_block)
        blocks = _permutation(num_blocks, self.seed, self.epoch, 1 + window)
        if self.shuffle_block > 1:
            rows = (blocks[:, None] * self.shuffle_block + np.arange(self.shuffle_block)).ravel()
            return rows[rows < num_rows][start:stop]
        return blocks[start:stop]

    def visits(self, intervals: Sequence[Interval]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Windows that some positions touch, each with the rows to take from it, in order.

        Positions must increase, so that each window is visited once.
        """
        touched: dict[int, list[Interval]] = {}
        for start, stop in intervals:
            window = int(np.searchsorted(self.starts, start, side="right")) - 1
            while start < stop:
                first, end = int(self.starts[window]), int(self.starts[window + 1])
                touched.setdefault(window, []).append((start - first, min(stop, end) - first))
                start = end
                window += 1
        for window, pieces in touched.items():
            rows = self.rows(window, 0, int(self.starts[window + 1] - self.starts[window]))
            yield window, np.concatenate([rows[start:stop] for start, stop in pieces])


def _windows(groups: Sequence[RowGroup], shuffle_rows: int) -> Iterator[tuple[RowGroup, ...]]:
    window: list[RowGroup] = []
    num_rows = 0
    for group in groups:
        window.append(group)
        num_rows += group.num_rows
        if num_rows >= shuffle_rows:
            yield _in_file_order(window)
            window, num_rows = [], 0
    if window:
        yield _in_file_order(window)


def _in_file_order(groups: Sequence[RowGroup]) -> tuple[RowGroup, ...]:
    # The rows are permuted anyway, and reading forwards is faster.
    return tuple(sorted(groups, key=lambda group: (group.file, group.index)))


def _permutation(size: int, seed: int, epoch: int, part: int) -> NDArray[np.int64]:
    # Raw bits and a stable sort: numpy promises the same numbers in every version only for these.
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(epoch, part))).random_raw(size)
    return stable_order(bits)


def stable_order(bits: NDArray[np.uint64]) -> NDArray[np.int64]:
    """``argsort(bits, kind="stable")`` of random bits, several times faster.

    Numpy sorts numbers of 16 bits by counting: twice that, the lower half first, sorts the upper 32 bits. The
    few numbers that share these are put in order afterwards.
    """
    order = np.argsort((bits >> np.uint64(32)).astype(np.uint16), kind="stable")
    order = order[np.argsort((bits >> np.uint64(48)).astype(np.uint16)[order], kind="stable")]
    upper = (bits >> np.uint64(32)).astype(np.uint32)[order]
    is_as_before = upper[1:] == upper[:-1]
    if is_as_before.any():
        is_tied = np.append(False, is_as_before) | np.append(is_as_before, False)
        tied = order[is_tied]
        order[is_tied] = tied[np.argsort(bits[tied], kind="stable")]
    return order.astype(np.int64, copy=False)


def _cut(intervals: Sequence[Interval], start: int, stop: int) -> tuple[Interval, ...]:
    """The part start … stop of intervals laid end to end."""
    pieces: list[Interval] = []
    offset = 0
    for first, end in intervals:
        low, high = max(start - offset, 0), min(stop - offset, end - first)
        if low < high:
            pieces.append((first + low, first + high))
        offset += end - first
    return tuple(pieces)


def _joined(intervals: Sequence[Interval]) -> tuple[Interval, ...]:
    joined: list[Interval] = []
    for start, stop in intervals:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return tuple(joined)

"""EncodedRows: the encoded rows of a split in memory-mapped files, gathered into batches."""

# N rows of the split, B rows of a batch, Z logits of another model

import mmap
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recmoe.data.order import Interval
from recmoe.data.row_format import Ints, RowFormat
from recmoe.features.batch import Batch

ROWS_FILE = "rows.bin"


def list_file(place: int) -> str:
    """The file of one list: the ids of a list key, or the ages of a sequence."""
    return f"list_{place}.bin"


class EncodedRows:
    """N encoded rows in the order of the files, on disk.

    The machine's page cache holds what was read last, once for all processes.

    Args:
        folder: ``rows.bin``, N records, and ``list_0.bin`` … with what the lists hold.
        format: of the records.
        teacher_NZ: what another model gives for the same rows, where they go with their batches.
    """

    def __init__(self, folder: Path, format: RowFormat, *, teacher_NZ: NDArray[np.float32] | None = None) -> None:
        assert teacher_NZ is None or teacher_NZ.dtype == np.float32
        self.folder = folder
        self.format = format
        self._teacher_NZ = teacher_NZ
        rows = _mapped(folder / ROWS_FILE)
        lists = [_mapped(folder / list_file(place)) for place in range(len(format.list_types))]
        self._records_N = _array(rows, format.dtype)
        self._lists = [_array(ids, kind) for ids, kind in zip(lists, format.list_types, strict=True)]
        self._maps = [(rows, format.dtype.itemsize), *zip(lists, (t.itemsize for t in format.list_types), strict=True)]

    @property
    def num_rows(self) -> int:
        return len(self._records_N)

    @property
    def num_bytes(self) -> int:
        """Bytes on disk."""
        return sum(len(mapped) for mapped, _ in self._maps if mapped is not None)

    def batch(self, rows_B: Ints) -> Batch:
        """Some rows, in the order given."""
        batch = self.format.unpack(self._records_N.take(rows_B), self._lists)
        if self._teacher_NZ is None:
            return batch
        return replace(batch, teacher_BZ=torch.from_numpy(self._teacher_NZ.take(rows_B, axis=0)))

    def taught_by(self, teacher_NZ: NDArray[np.float32]) -> "EncodedRows":
        """The same rows, whose batches hold what another model gives for them."""
        assert len(teacher_NZ) == self.num_rows
        return EncodedRows(self.folder, self.format, teacher_NZ=teacher_NZ)

    def will_need(self, ranges: Iterable[Interval]) -> None:
        """Have the machine read some rows ahead, from front to back, where they are not in memory yet."""
        self._advise(mmap.MADV_WILLNEED, ranges)

    def release(self, ranges: Iterable[Interval]) -> None:
        """Some rows no longer count as memory of this process; the machine may keep them."""
        self._advise(mmap.MADV_DONTNEED, ranges)

    def _advise(self, advice: int, ranges: Iterable[Interval]) -> None:
        for start, stop in ranges:
            for (mapped, size), (first, last) in zip(self._maps, self._spans(start, stop), strict=True):
                begin = first * size // mmap.PAGESIZE * mmap.PAGESIZE
                if mapped is not None and last * size > begin:
                    mapped.madvise(advice, begin, last * size - begin)

    def _spans(self, start: int, stop: int) -> Sequence[Interval]:
        """Where the rows' records and lists stand in their files, in elements."""
        first, last = self._records_N[start], self._records_N[stop - 1]
        ends = last["list_start"] + last["list_length"]
        return [(start, stop), *zip(first["list_start"].tolist(), ends.tolist(), strict=True)]


def gathered(
    rows: EncodedRows, windows: Iterator[tuple[Sequence[Interval], Ints]], *, batch_size: int
) -> Generator[Batch]:
    """Batches of rows that stand in windows; while one is gathered, the next one is read from disk.

    Args:
        windows: ranges of rows, and the rows to take of them, in order.
        batch_size: rows per batch; the last one may have fewer.
    """
    left, done = np.zeros(0, np.int64), list[Interval]()
    window = next(windows, None)
    if window is not None:
        rows.will_need(window[0])
    while window is not None:
        ranges, taken = window
        window = next(windows, None)
        if window is not None:
            rows.will_need(window[0])
        taken = np.concatenate([left, taken])
        # What is less than a batch goes into one with the next window, the last window's all the same.
        end = len(taken) if window is None else len(taken) // batch_size * batch_size
        for start in range(0, end, batch_size):
            yield rows.batch(taken[start : start + batch_size])
            rows.release(done)
            done = []
        left, done = taken[end:], [*done, *ranges]
    rows.release(done)


def pieces(intervals: Iterable[Interval], num_rows: int) -> Iterator[tuple[list[Interval], Ints]]:
    """Intervals as windows of at most some rows, in their order."""
    for first, end in intervals:
        for start in range(first, end, num_rows):
            stop = min(start + num_rows, end)
            yield [(start, stop)], np.arange(start, stop)


def _mapped(path: Path) -> mmap.mmap | None:
    """A file as memory that cannot be written; None for an empty one, which cannot be mapped."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else None


def _array(mapped: mmap.mmap | None, kind: np.dtype[Any]) -> NDArray[Any]:
    return np.zeros(0, kind) if mapped is None else np.frombuffer(mapped, kind)

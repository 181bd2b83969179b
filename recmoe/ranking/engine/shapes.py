"""SideShape and StaticRows: rows of a side in buffers of one size, padded with rows that are cut off again.

A CUDA graph reads the same addresses and sizes in every run. Rows are padded to a rung of a ladder; ids of lists and
histories are padded too, and those that are padding belong to rows that are padding, so that a padded batch is a batch
like any other.
"""

# B rows, of which the last are padding, F dense columns, K sparse keys, N ids of a key in all rows

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout, SparseKey

MAX_IDS = 2**17
"""Ids of a list's key in a graph, at most: a longer request is computed without one."""
_FEWEST_IDS = 64
_SPARE_ROWS = 32
"""Rows of padding that share the padding ids of lists: one alone would be pooled for longer than all others."""
_ALIGNMENT = 64
"""Bytes between the beginnings of buffers are a multiple of it."""


@dataclass(frozen=True)
class SideShape:
    """The sizes of the buffers of one side."""

    num_rows: int
    num_ids_K: tuple[int, ...]

    def holds(self, other: "SideShape") -> bool:
        """Whether what needs the other one fits, too."""
        return self.num_rows == other.num_rows and all(
            mine >= asked for mine, asked in zip(self.num_ids_K, other.num_ids_K, strict=True)
        )

    def joined(self, other: "SideShape") -> "SideShape":
        """The smallest one that holds both, which have as many rows."""
        pairs = zip(self.num_ids_K, other.num_ids_K, strict=True)
        return SideShape(self.num_rows, tuple(max(pair) for pair in pairs))


class SideShapes:
    """The shapes that a side may have.

    Example: one id and one list per row, three rows with five tags, rungs 4 and 64::

        rows 35 = 3 + spare  → 64           num_ids_K = (64, 64)

    Args:
        layout: of the side.
        rungs: numbers of rows, from small to large.
    """

    def __init__(self, layout: InputLayout, rungs: Sequence[int]) -> None:
        self.layout = layout
        self._lengths = {key: spec.max_length for spec in layout.sequences for key in spec.keys}
        self._is_plain = is_plain(layout)
        # As many rows can be in use as without padding that takes the ids.
        self.rungs = tuple(rungs) if self._is_plain else tuple(2 * rung for rung in rungs)

    def spare(self, num_rows: int) -> int:
        """Rows of a shape that must be padding, at least."""
        if self._is_plain:
            return 0
        # Padding of histories is as long as all that could have been there.
        return num_rows // 2 if self._lengths else min(_SPARE_ROWS, num_rows // 2)

    @property
    def most_rows(self) -> int:
        """Rows that fit into the largest shape."""
        return self.rungs[-1] - self.spare(self.rungs[-1])

    def of(self, batch: Batch) -> SideShape | None:
        """The smallest shape for the rows of a batch; None where there is none."""
        rung = next((rung for rung in self.rungs if batch.num_rows + self.spare(rung) <= rung), None)
        if rung is None:
            return None
        counts = [batch.num_rows] * len(self.layout.sparse) if self._is_plain else batch.count_ids()
        room = tuple(self._room(key, rung, count) for key, count in zip(self.layout.sparse, counts, strict=True))
        fits = all(count <= num for count, num in zip(counts, room, strict=True))
        return SideShape(rung, room) if fits else None

    def _room(self, key: SparseKey, num_rows: int, count: int) -> int:
        """Ids of a key."""
        if key.name in self._lengths:
            return (num_rows - self.spare(num_rows)) * self._lengths[key.name]
        if not key.is_list:
            return num_rows
        return min(MAX_IDS, max(_FEWEST_IDS, 1 << (count - 1).bit_length()))


class StaticRows:
    """The buffers of one side: views of some bytes on the host, and of as many where the model computes.

    Args:
        shape: of the buffers.
        layout: of the side.
    """

    def __init__(self, shape: SideShape, layout: InputLayout) -> None:
        self.shape = shape
        self._layout = layout
        counts = dict(zip((key.name for key in layout.sparse), shape.num_ids_K, strict=True))
        self._aged = [spec for spec in layout.sequences if spec.has_ages]
        self._num_ages = [counts[spec.keys[0]] for spec in self._aged]
        rows, keys = shape.num_rows, len(layout.sparse)
        self._sizes: list[tuple[torch.dtype, tuple[int, ...]]] = [
            (torch.int64, (sum(shape.num_ids_K),)),
            (torch.float32, (rows, len(layout.dense))),
            (torch.int32, (keys, rows)),
            (torch.float32, (sum(self._num_ages),)),
        ]

    @property
    def num_bytes(self) -> int:
        """Of all buffers."""
        return sum(aligned(dtype, size) for dtype, size in self._sizes)

    def batch(self, content: Tensor) -> Batch:
        """The padded rows, as a model reads them.

        Args:
            content: the bytes.
        """
        values, dense_BF, lengths_KB, ages = views(content, self._sizes)
        return Batch(
            dense_BF=dense_BF,
            lengths_KB=lengths_KB,
            values=values,
            labels_BL=dense_BF.new_zeros(self.shape.num_rows, 0),
            ages=ages if self._aged else None,
            num_ids_K=self.shape.num_ids_K,
        )

    def writer(self, content: Tensor) -> "RowsWriter":
        """What writes rows into the buffers.

        Args:
            content: the bytes, on the host.
        """
        # NumPy takes a tenth of torch's time for a few numbers.
        buffers = [view.numpy() for view in views(content, self._sizes)]
        return RowsWriter(self.shape, buffers, self._layout, self._num_ages)


class RowsWriter:
    """Writes rows of a batch into buffers, and padding behind them: row 0 of tables, and zeros.

    Args:
        shape: of the buffers.
        buffers: values, dense_BF, lengths_KB and ages.
        layout: of the side.
        num_ages: room for those of each sequence that has some.
    """

    def __init__(
        self, shape: SideShape, buffers: Sequence[NDArray[Any]], layout: InputLayout, num_ages: Sequence[int]
    ) -> None:
        self._shape = shape
        self._values, self._dense_BF, self._lengths_KB, self._ages = buffers
        self._is_plain = is_plain(layout)
        names = [key.name for key in layout.sparse]
        aged = [names.index(spec.keys[0]) for spec in layout.sequences if spec.has_ages]
        self._aged = list(zip(aged, num_ages, strict=True))

    def write(self, batch: Batch) -> None:
        """The rows of a batch that fits."""
        num_rows, num_padding = batch.num_rows, self._shape.num_rows - batch.num_rows
        self._dense_BF[:num_rows] = batch.dense_BF.numpy()
        self._dense_BF[num_rows:] = 0
        given = batch.values.numpy()
        if self._is_plain:
            by_key = self._values.reshape(self._lengths_KB.shape)
            by_key[:, :num_rows] = given.reshape(-1, num_rows)
            by_key[:, num_rows:] = 0
            self._lengths_KB.fill(1)
            return
        self._lengths_KB[:, :num_rows] = batch.lengths_KB.numpy()
        self._lengths_KB[:, num_rows:] = 1
        counts = batch.count_ids()
        first = start = 0
        for place, (count, room) in enumerate(zip(counts, self._shape.num_ids_K, strict=True)):
            self._values[start : start + count] = given[first : first + count]
            self._values[start + count : start + room] = 0
            if room - count != num_padding:
                each, others = divmod(room - count, num_padding)
                self._lengths_KB[place, num_rows:] = each
                self._lengths_KB[place, num_rows : num_rows + others] += 1
            first, start = first + count, start + room
        self._write_ages(batch, counts)

    def _write_ages(self, batch: Batch, counts: Sequence[int]) -> None:
        first = start = 0
        for place, room in self._aged:
            assert batch.ages is not None
            count = counts[place]
            self._ages[start : start + count] = batch.ages[first : first + count].numpy()
            self._ages[start + count : start + room] = 0
            first, start = first + count, start + room


def is_plain(layout: InputLayout) -> bool:
    """Whether every key has one id a row."""
    return not any(key.is_list or key.is_sequence for key in layout.sparse)


def aligned(dtype: torch.dtype, size: Sequence[int]) -> int:
    """Bytes of a buffer, with those behind it to the next."""
    num_bytes = dtype.itemsize * torch.Size(size).numel()
    return -(-num_bytes // _ALIGNMENT) * _ALIGNMENT


def views(content: Tensor, sizes: Sequence[tuple[torch.dtype, tuple[int, ...]]]) -> list[Tensor]:
    """Buffers that lie one after the other in some bytes."""
    found, start = [], 0
    for dtype, size in sizes:
        num_bytes = dtype.itemsize * torch.Size(size).numel()
        found.append(content[start : start + num_bytes].view(dtype).view(size))
        start += aligned(dtype, size)
    return found

"""Pieces: the parts of logical tensors that a process holds, and which of them it saves."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor
from torch.distributed._shard.sharded_tensor.api import ShardedTensor

BLOCK_BYTES = 16 << 20
"""Bytes that are copied, read or written in one go."""
SPLIT_BYTES = 1 << 20
"""Size from which a tensor that all ranks hold alike is saved in parts, one by each of them."""


class Box(Protocol):
    """A part of a logical tensor whose values can be had in blocks of rows."""

    @property
    def name(self) -> str: ...
    @property
    def whole(self) -> tuple[int, ...]: ...
    @property
    def start(self) -> tuple[int, ...]: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def rows(self, first: int, last: int) -> Self: ...
    def blocks(self) -> Iterator[Tensor]: ...


BoxT = TypeVar("BoxT", bound=Box)


@dataclass(frozen=True)
class Piece:
    """A box of a logical tensor, with its values.

    Example: the right half of the columns of a table of 10 rows × 8 is ``start (0, 4)``, values [10, 4].
    """

    name: str
    whole: tuple[int, ...]
    """Shape of the logical tensor."""
    start: tuple[int, ...]
    """Where the box begins, an index per dimension."""
    values: Tensor
    """Live ones, or a copy."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the box."""
        return tuple(self.values.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Of the values."""
        return self.values.dtype

    def rows(self, first: int, last: int) -> "Piece":
        """Rows first … last - 1 of the box."""
        return replace(self, start=(self.start[0] + first, *self.start[1:]), values=self.values[first:last])

    def blocks(self) -> Iterator[Tensor]:
        """The values on the host, some consecutive rows at a time."""
        for first, last in row_blocks(self.shape, self.values.element_size()):
            values = self.values if not self.shape else self.values[first:last]
            yield values.contiguous().cpu()


def row_blocks(shape: tuple[int, ...], element_bytes: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows of at most BLOCK_BYTES, one row at least; a scalar is one row."""
    num_rows, *rest = shape or (1,)
    row_bytes = max(1, element_bytes * torch.Size(rest).numel())
    step = max(1, BLOCK_BYTES // row_bytes)
    return ((first, min(num_rows, first + step)) for first in range(0, num_rows, step))


def pieces_here(tensors: Mapping[str, Tensor]) -> list[Piece]:
    """What this process holds of some tensors: its shards, and the whole of what is not sharded."""
    pieces = []
    for name, tensor in tensors.items():
        if isinstance(tensor, ShardedTensor):
            whole = tuple(tensor.metadata().size)
            pieces += [
                Piece(name, whole, tuple(shard.metadata.shard_offsets), shard.tensor.detach())
                for shard in tensor.local_shards()
            ]
        else:
            pieces.append(Piece(name, tuple(tensor.shape), (0,) * tensor.ndim, tensor.detach()))
    return pieces


def pieces_to_save(tensors: Mapping[str, Tensor], *, rank: int, world_size: int) -> list[Piece]:
    """What this process saves, so that all of them save everything once and about equally much.

    A shard is saved where it lives; what every rank holds alike is spread over them.
    """
    sharded = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, ShardedTensor)}
    # In an order that is the same in every rank, as that of sharded optimizers is not.
    alike = pieces_here({name: tensors[name] for name in sorted(tensors.keys() - sharded.keys())})
    return [*pieces_here(sharded), *spread(alike, rank=rank, world_size=world_size)]


def spread(boxes: Iterable[BoxT], *, rank: int, world_size: int) -> Iterator[BoxT]:
    """One rank's part of boxes: a range of rows of each large one, and small ones by turns."""
    turn = 0
    for box in boxes:
        if num_bytes(box.shape, box.dtype) >= SPLIT_BYTES and box.shape:
            first, last = (box.shape[0] * place // world_size for place in (rank, rank + 1))
            if first < last:
                yield box.rows(first, last)
        else:
            if turn % world_size == rank:
                yield box
            turn += 1


def num_bytes(shape: Iterable[int], dtype: torch.dtype) -> int:
    """Of a tensor."""
    return torch.Size(shape).numel() * dtype.itemsize

"""Pieces: the parts of logical tensors that a process holds, and which of them it saves."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.distributed._shard.sharded_tensor.api import ShardedTensor

BLOCK_BYTES = 16 << 20
"""Bytes that are copied, read or written in one go."""
SPLIT_BYTES = 1 << 20
"""Size from which a tensor that all ranks hold alike is saved in parts, one by each of them."""


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

    A shard is saved where it lives. What every rank holds alike is cut into ranges of rows, one
    per rank; small tensors go whole to one rank after the other.
    """
    sharded = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, ShardedTensor)}
    pieces = pieces_here(sharded)
    small = 0
    for piece in pieces_here({name: tensor for name, tensor in tensors.items() if name not in sharded}):
        if piece.values.nbytes >= SPLIT_BYTES and piece.shape:
            num_rows = piece.shape[0]
            first, last = (num_rows * place // world_size for place in (rank, rank + 1))
            if first < last:
                pieces.append(piece.rows(first, last))
        else:
            if small % world_size == rank:
                pieces.append(piece)
            small += 1
    return pieces

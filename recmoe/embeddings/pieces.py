"""Piece: a stored part of a large tensor; move_rows(): pieces, one after the other, by row into live tables."""

# V rows of the live tensor, D its columns, N rows of a piece

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed._shard.sharded_tensor.api import ShardedTensor

ROWS_PER_COPY = 1 << 20
"""Rows copied at once: what is gathered on the way stays small beside the tables."""


@dataclass(frozen=True)
class Piece:
    """A part of a stored tensor, and where it begins in it."""

    tensor: Tensor
    offsets: tuple[int, ...]


def local_parts(value: Tensor) -> list[Piece]:
    """What this process holds of a live tensor: its shards, or all of a tensor that is whole."""
    if isinstance(value, ShardedTensor):
        return [Piece(shard.tensor, tuple(shard.metadata.shard_offsets)) for shard in value.local_shards()]
    return [Piece(value, (0,) * value.dim())]


@torch.no_grad()
def move_rows(target: Tensor, pieces: Iterable[Piece], sources_V: Tensor) -> None:
    """Copy stored rows to the rows that go on from them, as far as this process holds these.

    Args:
        target: live, [V] or [V, D], whole or sharded; rows without a source keep what they hold.
        pieces: of the stored tensor, which has the same columns.
        sources_V: int64, the stored row of each live row, -1 for none.
    """
    parts = local_parts(target)
    for piece in pieces:
        first = piece.offsets[0]
        for part in parts:
            for start in range(0, part.tensor.shape[0], ROWS_PER_COPY):
                block = part.tensor[start : start + ROWS_PER_COPY]
                row = part.offsets[0] + start
                rows_N = sources_V[row : row + block.shape[0]] - first
                is_here_N = (rows_N >= 0) & (rows_N < piece.tensor.shape[0])
                if is_here_N.any():
                    _copy(block, is_here_N.nonzero()[:, 0], piece, rows_N[is_here_N], part.offsets[1:])


def _copy(block: Tensor, to_N: Tensor, piece: Piece, from_N: Tensor, columns: tuple[int, ...]) -> None:
    """Rows of a piece to rows of a block, where their columns overlap."""
    rows = piece.tensor.index_select(0, from_N)
    if not columns:
        block[to_N.to(block.device)] = rows.to(block)
        return
    low = max(columns[0], piece.offsets[1])
    high = min(columns[0] + block.shape[1], piece.offsets[1] + piece.tensor.shape[1])
    if low < high:
        wanted = rows[:, low - piece.offsets[1] : high - piece.offsets[1]]
        block[to_N.to(block.device), low - columns[0] : high - columns[0]] = wanted.to(block)

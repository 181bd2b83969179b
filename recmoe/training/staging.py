"""Staging: a copy of what a process saves, in host memory, so that training goes on while it is written."""

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace

import psutil
import torch
from torch import Tensor

from recmoe.machine import cgroup_limits
from recmoe.training.pieces import Piece

USABLE_SHARE = 0.8
"""Share of the free memory that a copy may take."""


class Staging:
    """Host memory for copies of pieces, as large as they are; kept from one copy to the next.

    From a GPU the copies go to pinned memory on a stream of their own: the caller does not wait
    for them, what it computes next does.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, tuple[int, ...]], Tensor] = {}

    def missing_bytes(self, pieces: Sequence[Piece]) -> int:
        """What a copy of these pieces would have to allocate."""
        return sum(piece.values.nbytes for piece in pieces if not self._fits(piece))

    def copy(self, pieces: Sequence[Piece]) -> tuple[list[Piece], Callable[[], None]]:
        """Copy pieces.

        Returns:
            The copies, and what waits until they are complete; both are good until the next call.
        """
        targets = [self._buffers[_key(piece)] if self._fits(piece) else _allocate(piece) for piece in pieces]
        self._buffers = {_key(piece): target for piece, target in zip(pieces, targets, strict=True)}
        copies = [replace(piece, values=target) for piece, target in zip(pieces, targets, strict=True)]
        has_cuda = any(piece.values.is_cuda for piece in pieces)
        stream = torch.cuda.Stream() if has_cuda else None  # type: ignore[no-untyped-call]
        if stream is not None:
            stream.wait_stream(torch.cuda.current_stream())
        with torch.no_grad(), torch.cuda.stream(stream) if stream is not None else nullcontext():
            for piece, target in zip(pieces, targets, strict=True):
                target.copy_(piece.values, non_blocking=True)
        if stream is None:
            return copies, _nothing
        # The next step must not change what is still being copied.
        torch.cuda.current_stream().wait_stream(stream)
        return copies, stream.record_event().synchronize

    def _fits(self, piece: Piece) -> bool:
        buffer = self._buffers.get(_key(piece))
        return buffer is not None and buffer.shape == piece.values.shape and buffer.dtype == piece.values.dtype


def free_bytes() -> int:
    """Memory that this process may still take: its share of what system and container leave to the local ranks."""
    free = psutil.virtual_memory().available
    limit = cgroup_limits().memory_bytes
    if limit is not None:
        free = min(free, limit - psutil.Process().memory_info().rss)
    return int(USABLE_SHARE * free) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def _key(piece: Piece) -> tuple[str, tuple[int, ...]]:
    return piece.name, piece.start


def _allocate(piece: Piece) -> Tensor:
    return torch.empty(piece.shape, dtype=piece.dtype, pin_memory=piece.values.is_cuda)


def _nothing() -> None:
    """Copies within the host are complete at once."""

"""move_rows(): rows of a stored table, block by block, to the rows of a live one that go on from them."""

# V rows of the live tensor, D its columns, N rows of one of its parts

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from recmoe.training.pieces import Box, Piece, pieces_here, row_blocks


@torch.no_grad()
def move_rows(
    target: Tensor, stored: Iterable[Box], sources_V: Tensor, *, columns: Sequence[int] | None = None
) -> None:
    """Copy stored rows to the rows that go on from them, as far as this process holds these.

    Only blocks that hold a wanted row are read.

    Args:
        target: live, [V] or [V, D], whole or sharded; rows and columns without a source keep what they hold.
        stored: boxes of whole rows that make the stored tensor.
        sources_V: int64, the stored row of each live row, -1 for none.
        columns: of a matrix, the stored column of each live one, -1 for none; by default the two have the same.
    """
    parts = []
    for part in pieces_here({"": target}):
        sources_N, order_N = sources_V[part.start[0] : part.start[0] + part.shape[0]].sort()
        parts.append((part.values, _columns_of(part, columns), sources_N, order_N))
    for box in stored:
        for start, stop in row_blocks(box.shape, box.dtype.itemsize):
            first, last = box.start[0] + start, box.start[0] + stop
            ranges = [torch.searchsorted(sources_N, torch.tensor([first, last])).tolist() for *_, sources_N, _ in parts]
            if all(low == high for low, high in ranges):
                continue
            rows = torch.cat(list(box.rows(start, stop).blocks()))
            for (values, moved, sources_N, order_N), (low, high) in zip(parts, ranges, strict=True):
                wanted = rows.index_select(0, sources_N[low:high] - first)
                order = order_N[low:high].to(values.device)
                if moved is None:
                    values[order] = wanted.to(values)
                else:
                    values[order[:, None], moved.live.to(values.device)] = wanted[:, moved.stored].to(values)


class _Columns(NamedTuple):
    """Columns of a part that go on, and where they are stored."""

    live: Tensor
    stored: Tensor


def _columns_of(part: Piece, columns: Sequence[int] | None) -> _Columns | None:
    """Which columns of a part are moved; None for a tensor without columns."""
    if len(part.shape) == 1:
        return None
    first, last = part.start[1], part.start[1] + part.shape[1]
    sources_C = torch.tensor(range(first, last) if columns is None else columns[first:last], dtype=torch.int64)
    live = (sources_C >= 0).nonzero()[:, 0]
    return _Columns(live, sources_C[live])

"""move_rows(): rows of a stored table, block by block, to the rows of a live one that go on from them."""

# V rows of the live tensor, D its columns, N rows of one of its parts

from collections.abc import Iterable

import torch
from torch import Tensor

from recmoe.training.pieces import Box, pieces_here, row_blocks


@torch.no_grad()
def move_rows(target: Tensor, stored: Iterable[Box], sources_V: Tensor) -> None:
    """Copy stored rows to the rows that go on from them, as far as this process holds these.

    Only blocks that hold a wanted row are read.

    Args:
        target: live, [V] or [V, D], whole or sharded; rows without a source keep what they hold.
        stored: boxes of whole rows that make the stored tensor, which has the same columns.
        sources_V: int64, the stored row of each live row, -1 for none.
    """
    parts = []
    for part in pieces_here({"": target}):
        sources_N, order_N = sources_V[part.start[0] : part.start[0] + part.shape[0]].sort()
        columns = tuple(slice(first, first + size) for first, size in zip(part.start[1:], part.shape[1:], strict=True))
        parts.append((part.values, columns, sources_N, order_N))
    for box in stored:
        for start, stop in row_blocks(box.shape, box.dtype.itemsize):
            first, last = box.start[0] + start, box.start[0] + stop
            ranges = [torch.searchsorted(sources_N, torch.tensor([first, last])).tolist() for *_, sources_N, _ in parts]
            if all(low == high for low, high in ranges):
                continue
            rows = torch.cat(list(box.rows(start, stop).blocks()))
            for (values, columns, sources_N, order_N), (low, high) in zip(parts, ranges, strict=True):
                wanted = rows.index_select(0, sources_N[low:high] - first)[(slice(None), *columns)]
                values[order_N[low:high].to(values.device)] = wanted.to(values)

"""Part: where the columns of one side stand in a batch, and what of them is looked up and taken."""

# B rows, T' towers, P sum of the widths of some keys

from typing import NamedTuple

import torch
from torch import Tensor

from recmoe.features.batch import Batch
from recmoe.features.layout import SHARED_SIDES, InputLayout


class Half(NamedTuple):
    """What user and context, or the item, contribute."""

    pieces: list[Tensor]
    wide_BT: Tensor | None


class Pooled(NamedTuple):
    """What was looked up, by whether it is of the shared columns."""

    vectors: dict[bool, list[Tensor]]
    linear: dict[bool, list[Tensor]]


class Part:
    """Where the columns of one side stand in a batch of some layout; by whether they are shared."""

    def __init__(self, layout: InputLayout) -> None:
        self.layout = layout
        self.values: dict[bool, list[slice]] = {True: [], False: []}
        self.positions: dict[bool, list[slice]] = {True: [], False: []}
        # Vectors that touch are one piece; weights of the linear part stand between those of different keys.
        self._pieces: list[tuple[int, bool, bool]] = []
        for key in layout.pooled:
            is_shared = key.side in SHARED_SIDES
            self._append(key.vector_width, is_linear=False, is_shared=is_shared)
            if key.num_linear:
                self._append(key.num_linear, is_linear=True, is_shared=is_shared)
        for index, column in enumerate(layout.dense):
            place = self.values if column.form == "value" else self.positions
            slices = place[column.side in SHARED_SIDES]
            first = slices.pop().start if slices and slices[-1].stop == index else index
            slices.append(slice(first, index + 1))

    def _append(self, width: int, *, is_linear: bool, is_shared: bool) -> None:
        if self._pieces and not is_linear and self._pieces[-1][1:] == (False, is_shared):
            width += self._pieces.pop()[0]
        self._pieces.append((width, is_linear, is_shared))

    def split(self, pooled_BP: Tensor) -> Pooled:
        """The looked up floats as vectors and weights of the linear part."""
        pooled = Pooled({True: [], False: []}, {True: [], False: []})
        if not self._pieces:
            return pooled
        # The gradient of a split is one copy; that of a slice is a matrix of zeros per piece.
        pieces = torch.split(pooled_BP, [width for width, _, _ in self._pieces], dim=1)
        for piece, (_, is_linear, is_shared) in zip(pieces, self._pieces, strict=True):
            (pooled.linear if is_linear else pooled.vectors)[is_shared].append(piece)
        return pooled


def take(dense_BF: Tensor, columns: list[slice]) -> Tensor:
    """Some columns: slices, for an index would have to be copied to the device for every batch."""
    pieces = [dense_BF[:, piece] for piece in columns]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1) if pieces else dense_BF[:, :0]


def joined(half: Half, batch: Batch) -> Tensor:
    """The pieces of a half side by side; no columns where there are none."""
    return torch.cat(half.pieces, dim=1) if half.pieces else batch.dense_BF[:, :0]

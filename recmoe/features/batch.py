"""Batch: rows as tensors, the only thing the model reads."""

# B rows, F dense columns, K sparse keys, L label columns

from dataclasses import dataclass, replace

import torch
from torch import Tensor

NO_GROUP = -(2**63)
"""In place of the hash of a group, where a row has none: such rows are not a list, alone or together."""


@dataclass(frozen=True)
class Batch:
    """B rows in the order of an ``InputLayout``.

    Example: two rows, keys ``user`` and ``tags``; the second row has two tags, the first none::

                   user   tags
            row 0  [7]    []            lengths_KB = [[1, 1],      values = [7, 3,  5, 9]
            row 1  [3]    [5, 9]                      [0, 2]]

    ``values`` runs key by key, within a key row by row.
    """

    dense_BF: Tensor
    """float32."""
    lengths_KB: Tensor
    """int32, ids per key and row."""
    values: Tensor
    """int64 rows of tables, ``lengths_KB.sum()`` of them."""
    labels_BL: Tensor
    """float32, NaN where a label is missing; no columns where labels were not asked for."""
    groups_B: Tensor | None = None
    """int64 hash of the row's group (request, session, user) or ``NO_GROUP``; None without a group column."""

    @property
    def num_rows(self) -> int:
        return self.dense_BF.shape[0]

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device; copies run beside computation where memory is pinned."""
        return replace(
            self,
            dense_BF=self.dense_BF.to(device, non_blocking=True),
            lengths_KB=self.lengths_KB.to(device, non_blocking=True),
            values=self.values.to(device, non_blocking=True),
            labels_BL=self.labels_BL.to(device, non_blocking=True),
            groups_B=None if self.groups_B is None else self.groups_B.to(device, non_blocking=True),
        )

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, from which a GPU copies without waiting."""
        return replace(
            self,
            dense_BF=self.dense_BF.pin_memory(),
            lengths_KB=self.lengths_KB.pin_memory(),
            values=self.values.pin_memory(),
            labels_BL=self.labels_BL.pin_memory(),
            groups_B=None if self.groups_B is None else self.groups_B.pin_memory(),
        )

    def record_stream(self, stream: torch.Stream) -> None:
        """Keep the memory until a stream of the GPU, to which the batch was handed, has done with it."""
        for tensor in (self.dense_BF, self.lengths_KB, self.values, self.labels_BL, self.groups_B):
            if tensor is not None:
                tensor.record_stream(stream)

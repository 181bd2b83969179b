"""Batch: rows as tensors, the only thing the model reads."""

# B rows, F dense columns, K sparse keys, L label columns, Z logits, N entries of a sequence in all rows

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recmoe.features.layout import InputLayout

NO_GROUP = -(2**63)
"""In place of the hash of a group, where a row has none: such rows are not a list, alone or together."""


@dataclass(frozen=True)
class Sequence:
    """The entries of one sequence feature, row by row and the newest of a row last.

    Example: two rows, of which the second has no history::

        history#item [[7, 3], []]    lengths_B = [2, 0]    rows_N["history#item"] = [7, 3]
    """

    lengths_B: Tensor
    """int32."""
    rows_N: Mapping[str, Tensor]
    """By sparse key, int64 rows of its table."""
    ages_N: Tensor | None
    """float32, how long before the row each entry was, in the unit of the log; None where the log has no times."""


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
    ages: Tensor | None = None
    """float32, one per entry of the sequences that have times, sequence by sequence, within it row by row; None where
    no sequence has."""
    teacher_BZ: Tensor | None = None
    """float32, the logits that another model gives for the rows, NaN where it knows no such task; None without one."""
    num_ids_K: tuple[int, ...] | None = None
    """Ids per key in all rows, where the host knows them: a device need not be waited for then."""

    @property
    def num_rows(self) -> int:
        return self.dense_BF.shape[0]

    def count_ids(self) -> list[int]:
        """Ids per key in all rows."""
        if self.num_ids_K is not None:
            return list(self.num_ids_K)
        counts: list[int] = self.lengths_KB.sum(dim=1).tolist()
        return counts

    def counted(self, num_ids_K: Iterable[int]) -> "Batch":
        """The same batch, of which the host knows how many ids each key has."""
        return replace(self, num_ids_K=tuple(num_ids_K))

    def sequences(self, layout: InputLayout) -> dict[str, Sequence]:
        """The sequences of the batch by feature.

        Args:
            layout: of this batch.
        """
        places = {key.name: place for place, key in enumerate(layout.sparse)}
        num_ids_K = self.count_ids() if layout.sequences else []
        rows_K = torch.split(self.values, num_ids_K) if layout.sequences else ()
        found, first_age = {}, 0
        for sequence in layout.sequences:
            first_key = places[sequence.keys[0]]
            ages_N = None
            if sequence.has_ages:
                assert self.ages is not None
                ages_N = self.ages[first_age : first_age + num_ids_K[first_key]]
                first_age += num_ids_K[first_key]
            found[sequence.name] = Sequence(
                lengths_B=self.lengths_KB[first_key],
                rows_N={key: rows_K[places[key]] for key in sequence.keys},
                ages_N=ages_N,
            )
        return found

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device; copies run beside computation where memory is pinned."""
        return replace(
            self,
            dense_BF=self.dense_BF.to(device, non_blocking=True),
            lengths_KB=self.lengths_KB.to(device, non_blocking=True),
            values=self.values.to(device, non_blocking=True),
            labels_BL=self.labels_BL.to(device, non_blocking=True),
            groups_B=None if self.groups_B is None else self.groups_B.to(device, non_blocking=True),
            ages=None if self.ages is None else self.ages.to(device, non_blocking=True),
            teacher_BZ=None if self.teacher_BZ is None else self.teacher_BZ.to(device, non_blocking=True),
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
            ages=None if self.ages is None else self.ages.pin_memory(),
            teacher_BZ=None if self.teacher_BZ is None else self.teacher_BZ.pin_memory(),
        )

    def record_stream(self, stream: torch.Stream) -> None:
        """Keeps the memory alive until the GPU stream that uses the batch has finished."""
        optional = (self.groups_B, self.ages, self.teacher_BZ)
        for tensor in (self.dense_BF, self.lengths_KB, self.values, self.labels_BL, *optional):
            if tensor is not None:
                tensor.record_stream(stream)

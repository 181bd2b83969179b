"""SegmentUse: how the gates of a level used its experts, segment by segment, and how decided they were.

Entropies of a row and of all rows: Mustafa et al., NeurIPS 2022, https://arxiv.org/abs/2206.02770 (LIMoE), whose local
and global entropy losses are made of the same two.
"""

# B rows, P pairs of a row and a segment it lies in, G gates, E experts, S segments, K = E + 3 sums of a gate

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from recmoe.moe.balance.statistics import SMALLEST_SHARE, entropy, visible
from recmoe.moe.gate_use import GateUse

ALL = "all rows"
"""The segment of all rows; the others are ``column=value``."""
OTHER = "(other)"
"""Stands for the rare values of a column together."""


class Segmented(NamedTuple):
    """Which rows of a batch lie in which segments; a row lies in several.

    Example: two rows, of which the second has device=phone: rows 0 1 1, segments 0 0 1.
    """

    names: tuple[str, ...]
    row_P: Tensor
    """int64."""
    segment_P: Tensor
    """int64, places in ``names``."""

    @property
    def num_rows_S(self) -> Tensor:
        """Rows of each segment, int64."""
        return self.segment_P.bincount(minlength=len(self.names))

    def first_rows(self, num_rows: int) -> dict[str, Tensor]:
        """By segment, those of the first rows of the batch that lie in it."""
        is_first_P = self.row_P < num_rows
        row_P, segment_P = self.row_P[is_first_P], self.segment_P[is_first_P]
        order_P = segment_P.argsort(stable=True)
        counts = segment_P.bincount(minlength=len(self.names)).tolist()
        rows = torch.split(row_P[order_P], counts)
        return {name: rows_N for name, rows_N in zip(self.names, rows, strict=True) if len(rows_N)}


@dataclass(frozen=True)
class SegmentUse:
    """What the gates of a level did on the rows of each segment.

    A task's gate counts the rows that count for the task; any other gate counts all of them.

    Example: two tasks, and a shared expert that one of them uses on phones more than elsewhere::

                                 ctr.0  cvr.0  shared.0
            ctr  all rows          .40      0       .60
                 device=phone      .10      0       .90
            cvr  all rows            0    .50       .50
                 device=phone        0    .50       .50
    """

    level: int
    gates: tuple[str, ...]
    experts: tuple[str, ...]
    visible_GE: Tensor
    """bool, which experts each gate sees."""
    segments: tuple[str, ...]
    num_rows_S: Tensor
    """int64, rows of each segment, whether they count for a gate or not."""
    sums_SGK: Tensor
    """float64 on the CPU. Over rows: how many, how many with a weight, entropies, and the weights of each expert."""

    def merge(self, other: "SegmentUse") -> "SegmentUse":
        """The use over the rows of both."""
        assert (self.level, self.gates, self.experts) == (other.level, other.gates, other.experts), "not the same level"
        names = tuple(dict.fromkeys((*self.segments, *other.segments)))
        place = {name: index for index, name in enumerate(names)}
        mine, theirs = (one._summed([place[name] for name in one.segments], names) for one in (self, other))
        return replace(mine, num_rows_S=mine.num_rows_S + theirs.num_rows_S, sums_SGK=mine.sums_SGK + theirs.sums_SGK)

    def most_frequent(self, max_values: int) -> "SegmentUse":
        """With the most frequent values of each column, in that order, and its others together as ``(other)``."""
        num_rows = dict(zip(self.segments, self.num_rows_S.tolist(), strict=True))
        columns: dict[str, list[str]] = {}
        for name in self.segments:
            if name != ALL:
                columns.setdefault(name.partition("=")[0], []).append(name)
        into = {ALL: ALL}
        for column, names in columns.items():
            ordered = sorted(names, key=lambda name: (-num_rows[name], name))
            into |= {name: name if at < max_values else f"{column}={OTHER}" for at, name in enumerate(ordered)}
        kept = tuple(dict.fromkeys(into.values()))
        place = {name: index for index, name in enumerate(kept)}
        return self._summed([place[into[name]] for name in self.segments], kept)

    def _summed(self, into_S: Sequence[int], names: tuple[str, ...]) -> "SegmentUse":
        """With other segments, into which those of this one go."""
        index_S = torch.tensor(into_S, dtype=torch.int64)
        return replace(
            self,
            segments=names,
            num_rows_S=self.num_rows_S.new_zeros(len(names)).index_add(0, index_S, self.num_rows_S),
            sums_SGK=self.sums_SGK.new_zeros(len(names), *self.sums_SGK.shape[1:]).index_add(0, index_S, self.sums_SGK),
        )

    @property
    def num_rows_SG(self) -> Tensor:
        """Rows of each segment that count for each gate."""
        return self.sums_SGK[:, :, 0]

    @property
    def usage_SGE(self) -> Tensor:
        """Mean weights; NaN where no row counts."""
        return self.sums_SGK[:, :, 3:] / self.num_rows_SG[:, :, None]

    @property
    def row_entropy_SG(self) -> Tensor:
        """Mean entropy of the shares that a row gives to experts: 0 where it has one, 1 where all have even shares.

        In units of the logarithm of the experts that the gate sees; NaN for a gate that sees one, and where no row has
        a weight.
        """
        return self.sums_SGK[:, :, 2] / self.sums_SGK[:, :, 1] / self._largest_G

    @property
    def total_entropy_SG(self) -> Tensor:
        """Entropy of the mean weights, in the same units: 0 where one expert gets everything, 1 where all get as much.

        What it is above that of the rows is, for a gate whose rows sum to one, the mutual information of rows and
        experts: how much its choice depends on the row.
        """
        return entropy(self.shares_SGE) / self._largest_G

    @property
    def shift_SG(self) -> Tensor:
        """Half the sum of how much shares differ from those over all rows: 0 for the same use, 1 for other experts."""
        shares_SGE = self.shares_SGE
        return (shares_SGE - shares_SGE[self.segments.index(ALL)]).abs().sum(dim=2) / 2

    @property
    def shares_SGE(self) -> Tensor:
        """Usage in shares of what the gate gives; NaN where it gives nothing."""
        weights_SGE = self.sums_SGK[:, :, 3:]
        total_SG1 = weights_SGE.sum(dim=2, keepdim=True)
        return torch.where(total_SG1 > SMALLEST_SHARE, weights_SGE / total_SG1, torch.nan)

    @property
    def _largest_G(self) -> Tensor:
        return torch.where(self.visible_GE.sum(dim=1) > 1, self.visible_GE.sum(dim=1).double().log(), torch.nan)


def task_of_gate(gate: str, task_names: Sequence[str]) -> str | None:
    """The task whose gate has this name: its own, or ``TASK alone``; None for one of no single task."""
    name = gate.removesuffix(" alone")
    return name if name in task_names else None


def segment_use(use: GateUse, segmented: Segmented, counts: Mapping[str, Tensor]) -> SegmentUse:
    """Of the rows of one batch; adds up on their device, and brings over the sums alone.

    Args:
        segmented: those rows that are measured; the others are padding.
        counts: by task, 1 in the rows that count for it.
    """
    w_BGE = use.weights_BGE.detach().double()
    tasks = [task_of_gate(gate, list(counts)) for gate in use.gates]
    ones_B = w_BGE.new_ones(len(w_BGE))
    counts_BG = torch.stack([ones_B if task is None else counts[task].to(w_BGE) for task in tasks], dim=1)
    total_BG = w_BGE.sum(dim=2)
    has_weight_BG = counts_BG * (total_BG > SMALLEST_SHARE)
    entropy_BG = entropy(w_BGE / total_BG.clamp(min=SMALLEST_SHARE)[:, :, None])
    columns = [counts_BG, has_weight_BG, has_weight_BG * entropy_BG]
    sums_BGK = torch.cat([torch.stack(columns, dim=2), counts_BG[:, :, None] * w_BGE], dim=2)
    sums_SGK = w_BGE.new_zeros(len(segmented.names), *sums_BGK.shape[1:])
    row_P, segment_P = (index.to(w_BGE.device) for index in (segmented.row_P, segmented.segment_P))
    sums_SGK.index_add_(0, segment_P, sums_BGK.index_select(0, row_P))
    return SegmentUse(
        level=use.level,
        gates=use.gates,
        experts=use.experts,
        visible_GE=visible(use).cpu(),
        segments=segmented.names,
        num_rows_S=segmented.num_rows_S,
        sums_SGK=sums_SGK.cpu(),
    )

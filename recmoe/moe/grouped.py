"""RowGroups: rows that lie expert after expert, counted where they are; and a linear layer that takes them."""

# P rows of all experts, E experts, D input width, O output width

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

ALIGNMENT = 8
"""Floats: torch's grouped product wants strides of 16 bytes, which are eight floats of two bytes."""


@dataclass(frozen=True)
class RowGroups:
    """Which of P rows belong to which expert; what lies behind the last is room that nobody uses.

    Example: three rows of expert 0, none of expert 1, two of expert 2, room for one more::

            rows        a0 a1 a2 c0 c1 --         ends_E = [3, 3, 5]
            expert_P     0  0  0  2  2  2         is_used_P = [1, 1, 1, 1, 1, 0]
    """

    ends_E: Tensor
    """int32."""
    expert_P: Tensor
    """int64; any expert where nothing is."""
    is_used_P: Tensor
    """Bool."""

    @classmethod
    def of_counts(cls, count_E: Tensor, room: int) -> "RowGroups":
        """From the number of rows of every expert, at most ``room`` together; nothing is read on the host."""
        ends_E = count_E.cumsum(0)
        place_P = torch.arange(room, device=count_E.device)
        expert_P = torch.searchsorted(ends_E, place_P, right=True).clamp(max=len(count_E) - 1)
        return cls(ends_E=ends_E.int(), expert_P=expert_P, is_used_P=place_P < ends_E[-1])

    def used(self, x_PD: Tensor) -> Tensor:
        """The rows, with zeros where nothing is, in both directions."""
        return torch.where(self.is_used_P[:, None], x_PD, 0.0)


def grouped_linear(x_PD: Tensor, weight_EOD: Tensor, bias_EO: Tensor | None, groups: RowGroups) -> Tensor:
    """y_PO: every row times the matrix of its expert, plus that one's bias, where there is one.

    Args:
        x_PD: zeros where nothing is, and rows that let no gradient through there; see ``RowGroups.used``.
    """
    num_outputs = weight_EOD.shape[1]
    pad_d, pad_o = -weight_EOD.shape[2] % ALIGNMENT, -num_outputs % ALIGNMENT
    if pad_d:
        x_PD = functional.pad(x_PD, (0, pad_d))
    if pad_d or pad_o:
        weight_EOD = functional.pad(weight_EOD, (0, pad_d, 0, pad_o))
    y_PO = functional.grouped_mm(x_PD, weight_EOD.transpose(1, 2), offs=groups.ends_E)[:, :num_outputs]
    if bias_EO is not None:
        y_PO = y_PO + bias_EO.index_select(0, groups.expert_P)
    # Behind the last row the product leaves whatever was in memory.
    return groups.used(y_PO)

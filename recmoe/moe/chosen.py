"""ChosenPairs: linear layers of experts without biases, each on the rows that chose it and on no others."""

# R rows, K experts that every row chooses, P = R · K pairs of row and expert, E experts, D input width, O output width,
# Q pairs with what a kernel wants besides

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from recmoe.moe.executors.dispatch import filled_up
from recmoe.moe.grouped import RowGroups, grouped_linear
from recmoe.moe.linear import compute_dtype


@dataclass(frozen=True)
class ChosenPairs:
    """P pairs of row and expert, and the order in which they are computed: expert by expert.

    Example: three rows, of which each chooses two of three experts::

            expert_RK  [0 2] [2 0] [2 1]          pairs  0  1    2  3    4  5

            order_Q    0 3 | 5 | 1 2 4            experts 0, 1 and 2
            place_P    0 3 4 1 5 2                where each pair lies in that order
    """

    num_chosen: int
    """K."""
    order_Q: Tensor
    """int64."""
    place_P: Tensor
    """int64."""
    parts: Sequence[int] | RowGroups
    """How many belong to each expert: as counts, or where they are, so that the host never waits for a GPU."""

    @classmethod
    def counted(cls, expert_RK: Tensor, num_experts: int, dtype: torch.dtype) -> "ChosenPairs":
        """For products in a type; the host reads the counts.

        Args:
            expert_RK: int64, the experts that each row chose.
        """
        order_P = expert_RK.flatten().argsort(stable=True)
        place_P = _inverse(order_P)
        counts = torch.bincount(expert_RK.flatten(), minlength=num_experts).tolist()
        if expert_RK.device.type != "cpu" or dtype != torch.bfloat16:
            return cls(expert_RK.shape[1], order_P, place_P, counts)
        filled, moved_P = filled_up(torch.split(order_P, counts))
        return cls(expert_RK.shape[1], torch.cat(list(filled)), moved_P[place_P], [len(pairs) for pairs in filled])

    @classmethod
    def in_place(cls, expert_RK: Tensor, num_experts: int) -> "ChosenPairs":
        """For products in groups; nothing is read on the host.

        Args:
            expert_RK: int64, the experts that each row chose.
        """
        order_P = expert_RK.flatten().argsort(stable=True)
        is_chosen_PE = expert_RK.reshape(-1, 1) == torch.arange(num_experts, device=expert_RK.device)
        groups = RowGroups.of_counts(is_chosen_PE.sum(dim=0), expert_RK.numel())
        return cls(expert_RK.shape[1], order_P, _inverse(order_P), groups)

    @classmethod
    def of(cls, expert_RK: Tensor, weight_EOD: Tensor) -> "ChosenPairs":
        """In the form that suits where the weights are; there are no groups in float64."""
        dtype = compute_dtype(weight_EOD)
        if weight_EOD.is_cuda and dtype != torch.float64:
            return cls.in_place(expert_RK, len(weight_EOD))
        return cls.counted(expert_RK, len(weight_EOD), dtype)

    def of_rows(self, x_RD: Tensor, weight_EOD: Tensor) -> Tensor:
        """y_PO: each row times the matrices of the experts that it chose."""
        return self._linear(x_RD, self.order_Q // self.num_chosen, weight_EOD)

    def of_pairs(self, x_PD: Tensor, weight_EOD: Tensor) -> Tensor:
        """y_PO: what each pair has by itself times the matrix of its expert."""
        return self._linear(x_PD, self.order_Q, weight_EOD)

    def _linear(self, x_ND: Tensor, read_Q: Tensor, weight_EOD: Tensor) -> Tensor:
        dtype = compute_dtype(weight_EOD)
        x_QD, weight_EOD = x_ND.to(dtype).index_select(0, read_Q), weight_EOD.to(dtype)
        if isinstance(self.parts, RowGroups):
            y_QO = grouped_linear(x_QD, weight_EOD, None, self.parts)
        else:
            parts = zip(torch.split(x_QD, list(self.parts)), weight_EOD.unbind(0), strict=True)
            y_QO = torch.cat([functional.linear(x_D, weight_OD) for x_D, weight_OD in parts])
        return y_QO.index_select(0, self.place_P)


def _inverse(order_P: Tensor) -> Tensor:
    """Where each of them lies in the order."""
    return torch.empty_like(order_P).scatter(0, order_P, torch.arange(len(order_P), device=order_P.device))

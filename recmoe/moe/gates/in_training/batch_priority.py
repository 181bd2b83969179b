"""Batch priority: experts take the rows first that are surest of their choice; others pass by when they are full.

V-MoE: Riquelme et al., NeurIPS 2021, https://arxiv.org/abs/2106.05974, section 2.4 and algorithm 2.
"""

# B rows, V experts visible to a gate, K experts that a row asks for

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor

from recmoe.config import Config
from recmoe.moe.gates.in_training.rule import room


class BatchPriorityConfig(Config):
    """Experts take rows in the order of how sure they are of their choice, until they are full."""

    kind: Literal["batch_priority"] = "batch_priority"
    capacity_factor: PositiveFloat = 1.0
    """Rows that an expert takes, by its even part of them; below 1 the least sure rows train no expert."""

    def build(self) -> "BatchPriority":
        """The rule."""
        return BatchPriority(capacity_factor=self.capacity_factor)


@dataclass(frozen=True)
class BatchPriority:
    """Rows in the order of their largest probability ask for their first choice; then for their second, up to the K-th.

    A row gets nothing in place of an expert that is full; a row all of whose choices are full passes by the experts:
    its mixture is zero. See ``Rule``.

    Args:
        capacity_factor: C of the paper.
    """

    uses_all: ClassVar[bool] = False
    capacity_factor: float

    def __call__(self, scores_BV: Tensor, k: int) -> Tensor:
        """is_given_BV, bool, at most K per row."""
        num_rows, num_experts = scores_BV.shape
        per_expert = room(num_rows=num_rows, num_experts=num_experts, k=k, capacity_factor=self.capacity_factor)
        order_B = scores_BV.amax(dim=1).argsort(descending=True, stable=True)
        wanted_BK = scores_BV.index_select(0, order_B).topk(k, dim=1).indices
        # The first choices of all rows, then the second ones.
        asks_KBV = wanted_BK.t()[:, :, None] == torch.arange(num_experts, device=scores_BV.device)
        place_KBV = asks_KBV.flatten(0, 1).cumsum(dim=0).view_as(asks_KBV)
        is_taken_BV = (asks_KBV & (place_KBV <= per_expert)).any(dim=0)
        return torch.zeros_like(is_taken_BV).index_copy(0, order_B, is_taken_BV)

"""Expert choice: every expert takes the rows of a batch that want it most, as many as every other expert.

Zhou et al., NeurIPS 2022, https://arxiv.org/abs/2202.09368, section 3.2, equations 1 and 2.
"""

# B rows, V experts visible to a gate, K experts that a row asks for, N rows that an expert takes

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor

from recmoe.config import Config
from recmoe.moe.gates.in_training.rule import room


class ExpertChoiceConfig(Config):
    """Every expert takes the rows that want it most, and as many as every other expert."""

    kind: Literal["expert_choice"] = "expert_choice"
    capacity_factor: PositiveFloat = 1.0
    """Rows that an expert takes, by its even part of them: a row has k times this many experts in the mean."""

    def build(self) -> "ExpertChoice":
        """The rule."""
        return ExpertChoice(capacity_factor=self.capacity_factor)


@dataclass(frozen=True)
class ExpertChoice:
    """Expert v takes the N rows with the largest S[b, v], N = capacity factor · K · B / V; see ``Rule``.

    Load is even by construction. A row may be taken by any number of experts; one that none takes passes by them: its
    mixture is zero.

    Args:
        capacity_factor: with K it makes c of the paper, the number of experts of a row in the mean.
    """

    uses_all: ClassVar[bool] = True
    capacity_factor: float

    def __call__(self, scores_BV: Tensor, k: int) -> Tensor:
        """is_given_BV, bool, N per column."""
        num_rows, num_experts = scores_BV.shape
        per_expert = room(num_rows=num_rows, num_experts=num_experts, k=k, capacity_factor=self.capacity_factor)
        row_NV = scores_BV.topk(per_expert, dim=0).indices
        return torch.zeros_like(scores_BV, dtype=torch.bool).scatter(0, row_NV, True)

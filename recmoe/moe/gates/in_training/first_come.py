"""First come: experts take rows in the order of the batch until they are full; a row then passes by to the next best.

Switch Transformer: Fedus et al., JMLR 2022, https://arxiv.org/abs/2101.03961, equation 3, and appendix B ("no token
left behind"). GShard: Lepikhin et al., ICLR 2021, https://arxiv.org/abs/2006.16668, algorithm 1.
"""

# B rows, V experts visible to a gate, K experts that a row asks for

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from recmoe.config import Config
from recmoe.moe.gates.in_training.rule import room


class FirstComeConfig(Config):
    """Experts take rows in the order of the batch until they are full."""

    kind: Literal["first_come"] = "first_come"
    capacity_factor: Annotated[float, Field(ge=1.0)] = 1.25
    """Rows that an expert takes, by its even part of them; with 1 or more there is room for every row."""

    def build(self) -> "FirstCome":
        """The rule."""
        return FirstCome(capacity_factor=self.capacity_factor)


@dataclass(frozen=True)
class FirstCome:
    """Round after round, a row asks for the best expert that it was not given yet and that has room; see ``Rule``.

    Within a round, experts take rows in the order of the batch. The paper lets a row over capacity pass by all
    experts, by the residual connection of a transformer; there is none here, so it passes by to the next best expert.
    With K = 1 every row is given an expert; with more, a row is given fewer than K where all others are full.

    Example: two experts with room for two rows each; all three rows would rather have the first::

            scores_BV               given_BV
            .9  .1                  1   0
            .8  .2                  1   0
            .7  .3                  0   1        over capacity

    Args:
        capacity_factor: 1 or more.
    """

    uses_all: ClassVar[bool] = False
    capacity_factor: float

    def __call__(self, scores_BV: Tensor, k: int) -> Tensor:
        """is_given_BV, bool, at most K per row."""
        num_rows, num_experts = scores_BV.shape
        per_expert = room(num_rows=num_rows, num_experts=num_experts, k=k, capacity_factor=self.capacity_factor)
        is_given_BV = torch.zeros_like(scores_BV, dtype=torch.bool)
        room_V = torch.full((num_experts,), per_expert, device=scores_BV.device)
        expert_V = torch.arange(num_experts, device=scores_BV.device)
        # In every round, a row that asks is given an expert or leaves one that is full.
        for _ in range(num_experts + k - 1):
            is_open_BV = ~is_given_BV & (room_V > 0)
            is_asking_B = (is_given_BV.sum(dim=1) < k) & is_open_BV.any(dim=1)
            # A GPU would have to be waited for.
            if scores_BV.device.type == "cpu" and not is_asking_B.any():
                break
            wanted_B = scores_BV.masked_fill(~is_open_BV, -1.0).argmax(dim=1)
            asks_BV = (wanted_B[:, None] == expert_V) & is_asking_B[:, None]
            is_taken_BV = asks_BV & (asks_BV.cumsum(dim=0) <= room_V)
            is_given_BV = is_given_BV | is_taken_BV
            room_V = room_V - is_taken_BV.sum(dim=0)
        return is_given_BV

"""Nash-MTL: the direction on which the tasks agree as players who bargain.

Navon et al., ICML 2022, https://arxiv.org/abs/2202.01017, claim 3.1 and equation 1. The paper solves its equation
M·α = 1/α by a sequence of convex programs. It is where ½·αᵀ·M·α - Σ log α is least, which is convex, and which Newton's
method finds in a few steps.
"""

# P tasks

from typing import Literal

import torch
from torch import Tensor

from recmoe.balancing.fork import Fork
from recmoe.config import Config

MAX_STEPS = 100
RIDGE = 1e-9
ENOUGH = 1e-12
"""Newton decrement at which the weights are exact."""


class NashMTLConfig(Config):
    """The weighted sum of gradients with the largest product of what each task gains."""

    kind: Literal["nash_mtl"] = "nash_mtl"

    def build(self, *, num_tasks: int) -> Fork | None:
        """The fork for so many tasks."""
        return Fork(num_tasks=num_tasks, rule=nash_mtl)


def nash_mtl(gram_PP: Tensor) -> Tensor:
    """weights_P > 0 with M·w ~ 1/w; their sum is P, as without a rule.

    Where no direction helps all tasks, the gradients cancel out.
    """
    # What makes opposite gradients an equation that can be solved.
    gram_PP = gram_PP + RIDGE * torch.eye(len(gram_PP), dtype=gram_PP.dtype)
    alpha_P = gram_PP.diagonal().rsqrt()
    for _ in range(MAX_STEPS):
        slope_P = gram_PP @ alpha_P - 1.0 / alpha_P
        step_P = torch.linalg.solve(gram_PP + torch.diag(alpha_P.pow(-2)), slope_P)
        decrement = float((slope_P @ step_P).clamp_min(0.0).sqrt())
        # With this length a step stays where all weights are above zero, for the function is self-concordant.
        alpha_P = alpha_P - step_P / (1.0 + decrement)
        if decrement < ENOUGH:
            break
    return len(gram_PP) * alpha_P / alpha_P.sum()

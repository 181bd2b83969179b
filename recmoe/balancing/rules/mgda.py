"""MGDA: the shortest of all weighted means of the tasks' gradients.

Sener & Koltun, NeurIPS 2018, https://arxiv.org/abs/1810.04650, equation 3: the w ≥ 0 of sum 1 with the least wᵀ·M·w.
The paper, and torchjd, come closer to it step by step, for which a hundred steps are often not enough; for as many
numbers as there are tasks a solver of quadratic programs finds it.
"""

# P tasks

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from recmoe.balancing.fork import Fork
from recmoe.balancing.needs import needs
from recmoe.config import Config

RIDGE = 1e-7
"""Added to the diagonal, so that parallel gradients have one solution."""


class MGDAConfig(Config):
    """The shortest weighted mean of the tasks' gradients: it goes down for all, and most for the one with the least."""

    kind: Literal["mgda"] = "mgda"

    def build(self, *, num_tasks: int) -> Fork | None:
        """The fork for so many tasks."""
        with needs("qpsolvers", "mgda"):
            import quadprog  # noqa: F401
            from qpsolvers import solve_qp

        def rule(gram_PP: Tensor) -> Tensor:
            ones, identity = np.ones(len(gram_PP)), np.eye(len(gram_PP))
            weights = solve_qp(
                gram_PP.numpy() + RIDGE * identity,
                0.0 * ones,
                A=ones[None, :],
                b=ones[:1],
                lb=0.0 * ones,
                solver="quadprog",
            )
            assert weights is not None, "the least of a strictly convex function on a simplex exists"
            # Weights of a mean, where losses, and gradients without a rule, are added up.
            return len(gram_PP) * torch.from_numpy(weights).clamp_min(0.0)

        return Fork(num_tasks=num_tasks, rule=rule)

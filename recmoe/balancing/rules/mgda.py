"""MGDA: the shortest of all weighted means of the tasks' gradients.

Sener & Koltun, NeurIPS 2018, https://arxiv.org/abs/1810.04650, equation 3 and algorithm 2:
the w ≥ 0 of sum 1 with the least wᵀ·M·w.
"""

# P tasks

from typing import Literal

from recmoe.balancing.fork import Fork
from recmoe.balancing.needs import needs
from recmoe.config import Config

LEAST_STEP, MAX_STEPS = 1e-5, 1000
"""Where the solver of the weights stops."""


class MGDAConfig(Config):
    """The shortest weighted mean of the tasks' gradients: it goes down for all, and most for the one with the least."""

    kind: Literal["mgda"] = "mgda"

    def build(self, *, num_tasks: int) -> Fork | None:
        """The fork for so many tasks."""
        with needs("torchjd", "mgda"):
            from torchjd.aggregation import MGDAWeighting

            solve = MGDAWeighting(epsilon=LEAST_STEP, max_iters=MAX_STEPS)
        # Weights of a mean, where losses, and gradients without a rule, are added up.
        return Fork(num_tasks=num_tasks, rule=lambda gram_PP: len(gram_PP) * solve(gram_PP))

"""IMTL-G: the weighted sum on which every task's gradient has the same projection.

Liu et al., ICLR 2021, https://openreview.net/forum?id=IMPnRXEWpvr, section 3.1: w ~ M⁻¹·norms, some of
which may be negative. For gradients that depend on each other as in Quinton & Rey, 2024,
https://arxiv.org/abs/2406.16232.
"""

# P tasks

from typing import Literal

from recmoe.balancing.fork import Fork
from recmoe.balancing.needs import needs
from recmoe.config import Config


class IMTLGConfig(Config):
    """The sum of weighted gradients onto which those of all tasks have projections of one length."""

    kind: Literal["imtl_g"] = "imtl_g"

    def build(self, *, num_tasks: int) -> Fork | None:
        """The fork for so many tasks."""
        with needs("torchjd", "imtl_g"):
            from torchjd.aggregation import IMTLGWeighting

            solve = IMTLGWeighting()
        # Weights whose sum is 1, where without a rule it is the number of tasks.
        return Fork(num_tasks=num_tasks, rule=lambda gram_PP: len(gram_PP) * solve(gram_PP))

"""Aligned-MTL: gradients are turned and scaled until they are orthogonal and of one length, and added up.

Senushkin et al., CVPR 2023, https://arxiv.org/abs/2305.19000, algorithm 1:
w = σ · V·Λ^(-1/2)·Vᵀ·1 with M = V·Λ·Vᵀ and σ² the least eigenvalue above zero.
"""

# P tasks

from typing import Literal

from recmoe.balancing.fork import Fork
from recmoe.balancing.needs import needs
from recmoe.config import Config


class AlignedMTLConfig(Config):
    """The tasks' gradients are made orthogonal, as long as the least of their principal components, and added up."""

    kind: Literal["aligned_mtl"] = "aligned_mtl"

    def build(self, *, num_tasks: int) -> Fork | None:
        """The fork for so many tasks."""
        with needs("torchjd", "aligned_mtl"):
            from torchjd.aggregation import AlignedMTLWeighting

            solve = AlignedMTLWeighting()
        # The mean of the aligned gradients, where losses, and gradients without a rule, are added up.
        return Fork(num_tasks=num_tasks, rule=lambda gram_PP: len(gram_PP) * solve(gram_PP))

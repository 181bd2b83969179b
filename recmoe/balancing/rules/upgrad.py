"""UPGrad: each task's gradient is turned until it harms no task, and these are added up.

Quinton & Rey, 2024, https://arxiv.org/abs/2406.16232, equations 3 and 4: w = Σ_p of the v ≥ e_p with the least vᵀ·M·v.
"""

# P tasks

from typing import Literal

from torch import Tensor

from recmoe.balancing.fork import Fork
from recmoe.balancing.needs import needs
from recmoe.config import Config


class UPGradConfig(Config):
    """Each task's gradient is projected onto the directions that harm no task; the projections are added up."""

    kind: Literal["upgrad"] = "upgrad"

    def build(self, *, num_tasks: int) -> Fork | None:
        """The fork for so many tasks."""
        with needs("torchjd", "upgrad"):
            from torchjd.aggregation import UPGradWeighting

            UPGradWeighting()

        def rule(gram_PP: Tensor) -> Tensor:
            # Directions alone, and lengths as what the projections are added up with: torchjd's solver adds a little
            # to the diagonal, which is a lot to a task whose gradient is short.
            norm_P = gram_PP.diagonal().sqrt()
            weights_P: Tensor = UPGradWeighting(pref_vector=norm_P)(gram_PP / (norm_P[:, None] * norm_P))
            return weights_P / norm_P

        return Fork(num_tasks=num_tasks, rule=rule)

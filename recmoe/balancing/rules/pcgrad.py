"""PCGrad: from each task's gradient, what points against another task's is taken away.

Yu et al., NeurIPS 2020, https://arxiv.org/abs/2001.06782, algorithm 1.
"""

# P tasks

import hashlib
from typing import Literal

import torch
from torch import Tensor

from recmoe.balancing.fork import Fork
from recmoe.balancing.needs import needs
from recmoe.config import Config


class PCGradConfig(Config):
    """From each task's gradient, what points against another's is taken away, in a random order of the others."""

    kind: Literal["pcgrad"] = "pcgrad"

    def build(self, *, num_tasks: int) -> Fork | None:
        """The fork for so many tasks."""
        with needs("torchjd", "pcgrad"):
            from torchjd.aggregation import PCGradWeighting

            solve = PCGradWeighting()

        def rule(gram_PP: Tensor) -> Tensor:
            # The order is drawn from the matrix itself: it is the same in all workers and in a run that resumes.
            digest = hashlib.sha256(gram_PP.numpy().tobytes()).digest()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
                weights_P: Tensor = solve(gram_PP)
            return weights_P

        return Fork(num_tasks=num_tasks, rule=rule)

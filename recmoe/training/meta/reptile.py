"""Reptile: the start moves towards where a few steps on a domain lead.

Nichol et al. 2018, https://arxiv.org/abs/1803.02999, algorithm 2 (several tasks a round); its share falls to 0 over the
rounds, as in the experiments there.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt

from recmoe.config import Config
from recmoe.training.learner import Learner
from recmoe.training.meta.rule import Domain


class ReptileConfig(Config):
    """The start moves towards where a few steps on a domain lead (Nichol et al. 2018)."""

    kind: Literal["reptile"] = "reptile"
    rounds: PositiveInt = 200
    """Moves of the start."""
    domains: PositiveInt = 4
    """Domains of a round; all where there are fewer."""
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Of the way to where the steps lead, in the first round; it falls to 0 in a straight line."""

    def build(self, learner: Learner) -> "Reptile":
        """The rule for a learner."""
        return Reptile(learner, share=self.share)


class Reptile:
    """With w_d for the weights after the steps on domain d of D::

        start += left · share · (1 / D) · Σ_d (w_d - start)

    Args:
        learner: whose start is moved.
        share: in the first round.
    """

    def __init__(self, learner: Learner, *, share: float) -> None:
        self._learner = learner
        self._share = share

    def round(self, domains: Sequence[Domain], *, num_steps: int, left: float) -> None:
        """Move the start; see ``MetaRule``."""
        learner = self._learner
        moved = {name: torch.zeros_like(weight) for name, weight in learner.weights.items()}
        for domain in domains:
            learner.restart()
            for _ in learner.steps(islice(domain, num_steps)):
                pass
            for name, weight in learner.weights.items():
                moved[name] += weight.detach() - learner.start(name)
        learner.restart()
        with torch.no_grad():
            for name, weight in learner.weights.items():
                weight.add_(moved[name], alpha=left * self._share / len(domains))
        learner.begin_here()

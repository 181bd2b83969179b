"""First-order MAML: the start follows the gradient that other rows of a domain have after the steps on it.

Finn et al., ICML 2017, https://arxiv.org/abs/1703.03400, algorithm 1 without second derivatives (section 5.2); Nichol
et al. 2018, https://arxiv.org/abs/1803.02999, section 2.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt

from recmoe.config import Config
from recmoe.training.learner import Learner
from recmoe.training.meta.rule import Domain


class FomamlConfig(Config):
    """The start follows the gradient of other rows of a domain after the steps on it (Finn et al. 2017)."""

    kind: Literal["fomaml"] = "fomaml"
    rounds: PositiveInt = 200
    """Moves of the start."""
    domains: PositiveInt = 4
    """Domains of a round; all where there are fewer."""
    lr: PositiveFloat = 0.001
    """Step size of Adam on the start, in the first round; it falls to 0 in a straight line."""

    def build(self, learner: Learner) -> "Fomaml":
        """The rule for a learner."""
        return Fomaml(learner, lr=self.lr)


class Fomaml:
    """With w_d for the weights after the steps on domain d of D, and L_d for the loss of other rows of it::

        start = Adam(start, (1 / D) · Σ_d ∇L_d(w_d))

    Args:
        learner: whose start is moved.
        lr: in the first round.
    """

    def __init__(self, learner: Learner, *, lr: float) -> None:
        self._learner = learner
        self._lr = lr
        self._optimizer = torch.optim.Adam(learner.weights.values(), lr=lr)

    def round(self, domains: Sequence[Domain], *, num_steps: int, left: float) -> None:
        """Move the start; see ``MetaRule``."""
        learner = self._learner
        sums = [torch.zeros_like(weight) for weight in learner.weights.values()]
        for domain in domains:
            learner.restart()
            for _ in learner.steps(islice(domain, num_steps)):
                pass
            for total, gradient in zip(sums, learner.gradients(next(domain)), strict=True):
                total += gradient / len(domains)
        learner.restart()
        for weight, total in zip(learner.weights.values(), sums, strict=True):
            weight.grad = total
        self._optimizer.param_groups[0]["lr"] = left * self._lr
        self._optimizer.step()
        learner.begin_here()

"""Product tasks: the probability of a whole funnel, trained on every row that enters it.

ESMM: Ma et al., SIGIR 2018, https://arxiv.org/abs/1804.07931, equations 1-3.
"""

# B rows, M factors

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor
from torch.nn import functional

from recmoe.config import Config
from recmoe.tasks.task import TaskOutput


class ProductTask:
    """Probability that every step of a funnel happens: p = Π σ(z_m), such as pCTCVR = pCTR · pCVR.

    Works in logarithms throughout, so neither a tiny nor a sure product loses its gradient::

        log p       = Σ_m log σ(z_m)
        log (1 − p) = log Σ_m  σ(z_1) ⋯ σ(z_{m−1}) · σ(−z_m)      "the first m − 1 steps happen, step m does not"

    The sum over the step that fails equals log1mexp(log p), but keeps gradients where log p rounds to 0.
    """

    def losses(self, logits_BM: Tensor, labels_B: Tensor) -> Tensor:
        """Cross-entropy per row, −y·log p − (1 − y)·log(1 − p), in nats; see ``Task``."""
        log_steps_BM = functional.logsigmoid(logits_BM)
        log_reached_BM = log_steps_BM.cumsum(dim=1)
        log_p_B = log_reached_BM[:, -1]
        log_fails_BM = log_reached_BM - log_steps_BM + functional.logsigmoid(-logits_BM)
        return -torch.where(labels_B > 0.5, log_p_B, torch.logsumexp(log_fails_BM, dim=1))

    def target(self, labels_B: Tensor) -> Tensor:
        """The label as it is; see ``Task``."""
        return labels_B

    def predict(self, logits_BM: Tensor) -> Tensor:
        """Probability per row; see ``Task``."""
        return torch.exp(functional.logsigmoid(logits_BM).sum(dim=1))


class ProductTaskConfig(Config):
    """A funnel as one task: it has no tower, its loss trains the towers of its factors over the first one's space."""

    output: ClassVar[TaskOutput] = "binary"

    kind: Literal["product"] = "product"
    of: Annotated[tuple[str, ...], Field(min_length=2)]
    """Tasks whose probabilities are multiplied, in the order of the funnel: each lives where the one before is 1."""
    label: str | None = None
    """Column that says whether the last step happened; the label of the last factor by default."""
    weight: NonNegativeFloat = 1.0
    """Factor of the task's loss; 0 predicts and evaluates the product without training on it."""

    def build(self) -> ProductTask:
        """Link and loss of this task."""
        return ProductTask()

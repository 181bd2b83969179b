"""Product tasks: the probability of a whole funnel, trained on every row that enters it.

ESMM: Ma et al., SIGIR 2018, https://arxiv.org/abs/1804.07931, equations 1-3.
"""

# B rows, K factors

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor
from torch.nn import functional

from recmoe.config import Config
from recmoe.features.labels import LabelColumn
from recmoe.tasks.error import CROSS_ENTROPY, ErrorMeasure
from recmoe.tasks.imitation import binary_divergence
from recmoe.tasks.level import Level
from recmoe.tasks.mixing import Mixing
from recmoe.tasks.scale import NATURAL, Scale
from recmoe.tasks.start import LabelSums, TaskStart
from recmoe.tasks.task import Measure, OutsideSpace, TaskOutput, TaskRows


class ProductTask:
    """Probability that every step of a funnel happens: p = Π σ(z_k), such as pCTCVR = pCTR · pCVR.

    Works in logarithms throughout, so neither a tiny nor a sure product loses its gradient::

        log p       = Σ_k log σ(z_k)
        log (1 − p) = log Σ_k  σ(z_1) ⋯ σ(z_{k−1}) · σ(−z_k)      "the first k − 1 steps happen, step k does not"

    The sum over the step that fails equals log1mexp(log p), but keeps gradients where log p rounds to 0.
    """

    logits: tuple[str, ...] = ()
    loss_power: Literal[0, 1, 2] = 0
    scale: Scale = NATURAL
    level: Level | None = None
    mixing: Mixing | None = None
    error: ErrorMeasure = CROSS_ENTROPY

    def losses(self, rows: TaskRows) -> Tensor:
        """Cross-entropy per row, −y·log p − (1 − y)·log(1 − p), in nats; see ``Task``."""
        log_p_B, log_not_p_B = _log_probabilities(rows.logits_BK)
        return -torch.where(rows.labels_B > 0.5, log_p_B, log_not_p_B)

    def imitation(self, rows: TaskRows, teacher_BK: Tensor, temperature: float) -> Tensor:
        """Divergence of the products; see ``Task``."""
        return binary_divergence(_log_odds(rows.logits_BK), _log_odds(teacher_BK), temperature)

    def predict(self, logits_BK: Tensor) -> Tensor:
        """Probability per row; see ``Task``."""
        return torch.exp(functional.logsigmoid(logits_BK).sum(dim=1))

    def measures(self, logits_BK: Tensor, labels_B: Tensor) -> Mapping[str, Tensor]:
        """None; see ``Task``."""
        del logits_BK, labels_B
        return {}

    def statistics(self, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """None: it has no tower to start; see ``Task``."""
        return labels_B[:, None][:, :0], labels_B[:, None][:, :0]

    def starts(self, sums: LabelSums) -> list[TaskStart]:
        """None; see ``Task``."""
        del sums
        return []


def _log_probabilities(logits_BK: Tensor) -> tuple[Tensor, Tensor]:
    """log p and log (1 − p) per row."""
    log_steps_BK = functional.logsigmoid(logits_BK)
    log_reached_BK = log_steps_BK.cumsum(dim=1)
    log_fails_BK = log_reached_BK - log_steps_BK + functional.logsigmoid(-logits_BK)
    return log_reached_BK[:, -1], torch.logsumexp(log_fails_BK, dim=1)


def _log_odds(logits_BK: Tensor) -> Tensor:
    log_p_B, log_not_p_B = _log_probabilities(logits_BK)
    return log_p_B - log_not_p_B


class ProductTaskConfig(Config):
    """A funnel as one task: it has no tower, its loss trains the towers of its factors over the first one's space."""

    output: ClassVar[TaskOutput] = "binary"
    needs_groups: ClassVar[bool] = False
    measures: ClassVar[Mapping[str, Measure]] = {}
    space: ClassVar[str | None] = None
    """Of its own: it lives where its first factor does."""
    available: ClassVar[str | None] = None
    """Of its own: its rows are those that are available to all factors."""
    outside_space: ClassVar[OutsideSpace] = "ignore"

    kind: Literal["product"] = "product"
    of: Annotated[tuple[str, ...], Field(min_length=2)]
    """Tasks whose probabilities are multiplied, in the order of the funnel: each lives where the one before is 1."""
    label: str | None = None
    """Column that says whether the last step happened; the label of the last factor by default."""
    weight: NonNegativeFloat = 1.0
    """Factor of the task's loss; 0 predicts and evaluates the product without training on it."""

    @property
    def factors(self) -> tuple[str, ...]:
        """Tasks that it multiplies."""
        return self.of

    def label_column(self) -> LabelColumn | None:
        """Its label where it has one of its own, as the encoder reads it."""
        return None if self.label is None else LabelColumn(self.label, is_binary=True)

    def build(self) -> ProductTask:
        """Link and loss of this task."""
        return ProductTask()

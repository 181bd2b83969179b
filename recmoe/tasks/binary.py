"""Binary tasks: click, conversion, like."""

# B rows, K = 1 logit

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from recmoe.features.labels import LabelColumn, Positive
from recmoe.tasks.error import CROSS_ENTROPY, ErrorMeasure
from recmoe.tasks.imitation import binary_divergence
from recmoe.tasks.level import Level
from recmoe.tasks.mixing import LOG_ODDS, Mixing
from recmoe.tasks.own_label import OwnLabelConfig
from recmoe.tasks.scale import NATURAL, Scale
from recmoe.tasks.start import LabelSums, TaskStart
from recmoe.tasks.task import TaskOutput, TaskRows


class BinaryTask:
    """Probability of a 0/1 label: p = σ(z), loss −y·log p − (1 − y)·log(1 − p)."""

    logits: tuple[str, ...] = ("",)
    loss_power: Literal[0, 1, 2] = 0
    scale: Scale = NATURAL
    level: Level | None = None
    mixing: Mixing | None = LOG_ODDS
    error: ErrorMeasure = CROSS_ENTROPY

    def losses(self, rows: TaskRows) -> Tensor:
        """Cross-entropy per row, in nats; see ``Task``."""
        return functional.binary_cross_entropy_with_logits(rows.logits_BK[:, 0], rows.labels_B, reduction="none")

    def imitation(self, rows: TaskRows, teacher_BK: Tensor, temperature: float) -> Tensor:
        """Divergence of the probabilities; see ``Task``."""
        return binary_divergence(rows.logits_BK[:, 0], teacher_BK[:, 0], temperature)

    def predict(self, logits_BK: Tensor) -> Tensor:
        """Probability per row; see ``Task``."""
        return torch.sigmoid(logits_BK[:, 0])

    def measures(self, logits_BK: Tensor, labels_B: Tensor) -> Mapping[str, Tensor]:
        """None; see ``Task``."""
        del logits_BK, labels_B
        return {}

    def statistics(self, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """The label; see ``Task``."""
        return labels_B[:, None], torch.ones_like(labels_B)[:, None]

    def starts(self, sums: LabelSums) -> list[TaskStart]:
        """The log-odds; see ``Task``."""
        return [sums.binary_start(0)]


class BinaryTaskConfig(OwnLabelConfig):
    """A 0/1 label, predicted as its probability within the task's space."""

    output: ClassVar[TaskOutput] = "binary"

    kind: Literal["binary"] = "binary"
    label: str
    """Column that holds 0, 1 or null, or what ``positive`` reads; null rows are left out of loss and metrics."""
    positive: Positive | None = None
    """Which values count as 1: ``Y``, ``[cart, buy]``, ``{at_least: 4}``; by default 1 and true do."""

    def label_column(self) -> LabelColumn | None:
        """Its label, as the encoder reads it."""
        return LabelColumn(self.label, is_binary=True, positive=self.positive)

    def build(self) -> BinaryTask:
        """Link and loss of this task."""
        return BinaryTask()

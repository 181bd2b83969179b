"""Binary tasks: click, conversion, like."""

# B rows, M = 1 tower

from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn import functional

from recmoe.config import Config
from recmoe.features.labels import Positive
from recmoe.tasks.task import OutsideSpace, Space, TaskOutput


class BinaryTask:
    """Probability of a 0/1 label: p = σ(z), loss −y·log p − (1 − y)·log(1 − p)."""

    def losses(self, logits_BM: Tensor, labels_B: Tensor) -> Tensor:
        """Cross-entropy per row, in nats; see ``Task``."""
        return functional.binary_cross_entropy_with_logits(logits_BM[:, 0], labels_B, reduction="none")

    def target(self, labels_B: Tensor) -> Tensor:
        """The label as it is; see ``Task``."""
        return labels_B

    def predict(self, logits_BM: Tensor) -> Tensor:
        """Probability per row; see ``Task``."""
        return torch.sigmoid(logits_BM[:, 0])


class BinaryTaskConfig(Config):
    """A 0/1 label, predicted as its probability within the task's space."""

    output: ClassVar[TaskOutput] = "binary"

    kind: Literal["binary"] = "binary"
    label: str
    """Column that holds 0, 1 or null, or what ``positive`` reads; null rows are left out of loss and metrics."""
    positive: Positive | None = None
    """Which values count as 1: ``Y``, ``[cart, buy]``, ``{at_least: 4}``; by default 1 and true do."""
    space: Space = None
    """Binary task, or the label column of one, that must be 1 for a row to count, such as click for a conversion."""
    weight: NonNegativeFloat = 1.0
    """Factor of the task's loss; 0 trains the tower only through products that contain it."""
    outside_space: OutsideSpace = "error"
    """What a positive label outside the space does: stop with an error (conversion without click), or be ignored."""

    def build(self) -> BinaryTask:
        """Link and loss of this task."""
        return BinaryTask()

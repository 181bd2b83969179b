"""Regression tasks: watch time, spend, rating."""

# B rows, M = 1 tower

from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.nn import functional

from recmoe.config import Config
from recmoe.tasks.task import OutsideSpace, Space, TaskOutput


class RegressionTask:
    """A real value y, learnt as t(y) by squared or Huber error: loss(z − t(y)), prediction t⁻¹(z).

    ``log1p`` is t(y) = sign(y) · log(1 + |y|), which also lets negative values through.

    Args:
        transform: t, the scale on which the error is measured.
        loss: ``mse`` is the squared error; ``huber`` is d²/2 up to ``huber_delta``, linear beyond.
        huber_delta: where Huber turns linear, in transformed units.
    """

    def __init__(
        self, *, transform: Literal["none", "log1p"], loss: Literal["mse", "huber"], huber_delta: float
    ) -> None:
        self.transform = transform
        self.loss = loss
        self.huber_delta = huber_delta

    def losses(self, logits_BM: Tensor, labels_B: Tensor) -> Tensor:
        """Error per row, in transformed units; see ``Task``."""
        target_B = self.target(labels_B)
        if self.loss == "huber":
            return functional.huber_loss(logits_BM[:, 0], target_B, reduction="none", delta=self.huber_delta)
        return functional.mse_loss(logits_BM[:, 0], target_B, reduction="none")

    def target(self, labels_B: Tensor) -> Tensor:
        """t(y) per row; see ``Task``."""
        return torch.sign(labels_B) * torch.log1p(labels_B.abs()) if self.transform == "log1p" else labels_B

    def predict(self, logits_BM: Tensor) -> Tensor:
        """Value per row, in the unit of the label; see ``Task``."""
        logits_B = logits_BM[:, 0]
        if self.transform == "log1p":
            return torch.sign(logits_B) * torch.expm1(logits_B.abs())
        return logits_B


class RegressionTaskConfig(Config):
    """A real label, predicted in its own unit within the task's space."""

    output: ClassVar[TaskOutput] = "regression"

    kind: Literal["regression"] = "regression"
    label: str
    """Column that holds finite numbers or null; null rows are left out of loss and metrics."""
    space: Space = None
    """Binary task, or the label column of one, that must be 1 for a row to count; all rows by default."""
    weight: NonNegativeFloat = 1.0
    """Factor of the task's loss."""
    outside_space: OutsideSpace = "error"
    """What a positive label outside the space does: stop with an error, or be ignored."""
    transform: Literal["none", "log1p"] = "none"
    """Scale of the error: the label's own, or sign(y) · log(1 + |y|) for amounts and durations."""
    loss: Literal["mse", "huber"] = "mse"
    """Squared error, or Huber's, which grows linearly for outliers."""
    huber_delta: PositiveFloat = 1.0
    """Error at which Huber's loss turns linear, in transformed units."""

    def build(self) -> RegressionTask:
        """Link and loss of this task."""
        return RegressionTask(transform=self.transform, loss=self.loss, huber_delta=self.huber_delta)

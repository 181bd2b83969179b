"""The dense optimizer, and the learning-rate schedule that dense part and tables share."""

import math
from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import nn

from recmoe.config import Config


class AdamWConfig(Config):
    """Loshchilov and Hutter, ICLR 2019, https://arxiv.org/abs/1711.05101."""

    kind: Literal["adamw"] = "adamw"
    lr: PositiveFloat = 1e-3
    """Step size at the top of the schedule."""
    weight_decay: NonNegativeFloat = 0.0
    """Share of the weight taken off per unit of learning rate; biases and gates' biases are spared."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the first and the second moment."""
    eps: PositiveFloat = 1e-8
    """Added to the root of the second moment."""

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        parameters = list(parameters)
        matrices = [p for p in parameters if p.ndim > 1]
        vectors = [p for p in parameters if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": self.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        return torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=self.lr, betas=self.betas, eps=self.eps, fused=True
        )


class ConstantSchedule(Config):
    """The full rate after the warm-up."""

    kind: Literal["constant"] = "constant"
    warmup_steps: NonNegativeInt = 0
    """Steps of linear rise from zero, half of the run at most."""

    def factor(self, step: int, num_steps: int) -> float:
        """Share of the full rate at a step, counted from 0."""
        return _warmup(step, _cut(self.warmup_steps, num_steps))


class CosineSchedule(Config):
    """Half a cosine from the full rate down to ``final``. Loshchilov and Hutter, ICLR 2017."""

    kind: Literal["cosine"] = "cosine"
    warmup_steps: NonNegativeInt = 0
    """Steps of linear rise from zero, half of the run at most."""
    final: NonNegativeFloat = 0.0
    """Share of the full rate that it reaches with the end of the run."""

    def factor(self, step: int, num_steps: int) -> float:
        """Share of the full rate at a step, counted from 0."""
        warmup_steps = _cut(self.warmup_steps, num_steps)
        if step < warmup_steps:
            return _warmup(step, warmup_steps)
        progress = min(1.0, (step - warmup_steps) / max(1, num_steps - warmup_steps))
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * progress))


class LinearSchedule(Config):
    """A straight line from the full rate down to ``final``."""

    kind: Literal["linear"] = "linear"
    warmup_steps: NonNegativeInt = 0
    """Steps of linear rise from zero, half of the run at most."""
    final: NonNegativeFloat = 0.0
    """Share of the full rate that it reaches with the end of the run."""

    def factor(self, step: int, num_steps: int) -> float:
        """Share of the full rate at a step, counted from 0."""
        warmup_steps = _cut(self.warmup_steps, num_steps)
        if step < warmup_steps:
            return _warmup(step, warmup_steps)
        progress = min(1.0, (step - warmup_steps) / max(1, num_steps - warmup_steps))
        return 1.0 - (1.0 - self.final) * progress


ScheduleConfig = Annotated[ConstantSchedule | CosineSchedule | LinearSchedule, Field(discriminator="kind")]


def _cut(warmup_steps: int, num_steps: int) -> int:
    """A warm-up that leaves half of a short run to the full rate."""
    return min(warmup_steps, num_steps // 2)


def _warmup(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / (warmup_steps + 1))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = lr

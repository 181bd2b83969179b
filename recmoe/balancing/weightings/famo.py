"""FAMO: fast adaptive multitask optimization, all losses fall at one rate.

Liu et al., NeurIPS 2023, https://arxiv.org/abs/2306.03792, algorithm 1 with the authors' choice of Adam for its logits.
"""

# T tasks

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from recmoe.balancing.fork import Fork
from recmoe.balancing.weightings.weighting import weight_curves
from recmoe.config import Config
from recmoe.workers import mean_over_workers

FIRST_DECAY, SECOND_DECAY, EPS = 0.9, 0.999, 1e-8
"""Adam's own."""


class FAMOWeightingConfig(Config):
    """Weights under which all losses fall at one rate (Liu et al. 2023), times the ``weight`` of the task."""

    reads_gradients: ClassVar[bool] = False
    kind: Literal["famo"] = "famo"
    lr: PositiveFloat = 0.025
    """Learning rate of the logits behind the weights."""
    weight_decay: NonNegativeFloat = 1e-3
    """Pulls the logits towards zero, where all tasks weigh the same."""

    def build(self, *, weights: Sequence[float], outputs: Sequence[str], fork: Fork | None = None) -> "FAMOWeighting":
        """The sum for tasks with these weights."""
        del outputs, fork
        return FAMOWeighting(weights=weights, lr=self.lr, weight_decay=self.weight_decay)


class FAMOWeighting(nn.Module):
    """The gradient of Σ_t z_t · log L_t, scaled so that the weights of the losses add up to T::

        Σ_t w_t · λ_t · L_t,    λ_t = T · (z_t / L_t) / Σ_s (z_s / L_s),    z = softmax(ξ)
        ξ moves against  Σ_t δ_t · ∂z_t/∂ξ,    δ_t = log L_t before a step - log L_t after it

    The loss after a step is that of the next batch, so that no batch is computed twice. The sum of all δ is the first
    minus the last logarithm: the noise between batches does not add up.

    Args:
        weights: w_t, factors from the config; a task with weight 0 takes no part, nor does one in a step in which its
            loss is not above zero.
    """

    weights_T: Tensor
    logits_T: Tensor
    """ξ."""
    first_T: Tensor
    """Adam's mean of the gradients of ξ."""
    second_T: Tensor
    """Adam's mean of their squares."""
    num_moves: Tensor
    before_T: Tensor
    """Losses of the step before; NaN at the first."""
    dynamic_T: Tensor
    """λ."""

    def __init__(self, *, weights: Sequence[float], lr: float, weight_decay: float) -> None:
        super().__init__()
        self.lr = lr
        self.weight_decay = weight_decay
        num_tasks = len(weights)
        self.register_buffer("weights_T", torch.tensor(weights, dtype=torch.float32), persistent=False)
        self.register_buffer("logits_T", torch.zeros(num_tasks))
        self.register_buffer("first_T", torch.zeros(num_tasks))
        self.register_buffer("second_T", torch.zeros(num_tasks))
        self.register_buffer("num_moves", torch.zeros(()))
        self.register_buffer("before_T", torch.full((num_tasks,), torch.nan))
        self.register_buffer("dynamic_T", torch.ones(num_tasks))

    def forward(self, losses_T: Tensor) -> Tensor:
        """The weighted sum, a scalar; in training it counts as a step."""
        if self.training:
            self._observe(mean_over_workers(losses_T.detach()))
        return (self.weights_T * self.dynamic_T.clone() * losses_T).sum()

    @torch.no_grad()
    def _observe(self, losses_T: Tensor) -> None:
        """Move ξ by what the step before did, and find λ; no number is read, which would wait for a GPU."""
        # A loss of 0 is that of a batch without a row for the task.
        after_T = torch.where(losses_T > 0, losses_T, self.before_T)
        self._move(self.before_T.log() - after_T.log())
        self.before_T.copy_(after_T)
        share_T = self._shares() / after_T.nan_to_num(nan=1.0)
        self.dynamic_T.copy_((self.weights_T > 0).sum() * share_T / share_T.sum())

    def _move(self, delta_T: Tensor) -> None:
        """One step of Adam on ξ; none at the first batch."""
        is_known_T = torch.isfinite(delta_T)
        delta_T = torch.where(is_known_T, delta_T, 0.0)
        z_T = self._shares()
        grad_T = z_T * (delta_T - (z_T * delta_T).sum()) + self.weight_decay * self.logits_T
        self.num_moves += is_known_T.any()
        self.first_T.lerp_(grad_T, 1.0 - FIRST_DECAY)
        self.second_T.lerp_(grad_T.square(), 1.0 - SECOND_DECAY)
        num_moves = self.num_moves.clamp_min(1.0)
        mean_T = self.first_T / (1.0 - FIRST_DECAY**num_moves)
        square_T = self.second_T / (1.0 - SECOND_DECAY**num_moves)
        self.logits_T -= self.lr * mean_T / (square_T.sqrt() + EPS)

    def _shares(self) -> Tensor:
        """z_T, zero for tasks that take no part."""
        return torch.softmax(self.logits_T.masked_fill(self.weights_T <= 0, -torch.inf), dim=0)

    def curves(self, names: Sequence[str]) -> Mapping[str, float]:
        """λ times the weight of the config."""
        return weight_curves(names, self.weights_T * self.dynamic_T)

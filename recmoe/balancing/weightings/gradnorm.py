"""GradNorm: weights under which all tasks learn at one rate, by the lengths of their gradients.

Chen et al., ICML 2018, https://arxiv.org/abs/1711.02257, algorithm 1, equations 1 and 2. The paper takes gradients of
the weights of the last shared layer; here they are those of what it hands to the tasks, which the fork has at hand.
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

LEAST_WEIGHT = 1e-3
"""Below it a task would hardly come back."""


class GradNormWeightingConfig(Config):
    """Weights under which all tasks learn at one rate (Chen et al. 2018), times the ``weight`` of the task."""

    reads_gradients: ClassVar[bool] = True
    kind: Literal["gradnorm"] = "gradnorm"
    alpha: NonNegativeFloat = 1.5
    """How strongly tasks that lag behind are pulled; 0 makes all gradients equally long."""
    lr: PositiveFloat = 0.025
    """Learning rate of the weights."""

    def build(
        self, *, weights: Sequence[float], outputs: Sequence[str], fork: Fork | None = None
    ) -> "GradNormWeighting":
        """The sum for tasks with these weights, which reads the gradients at a fork."""
        del outputs
        assert fork is not None, "the config was checked to have a fork"
        weighting = GradNormWeighting(weights=weights, alpha=self.alpha, lr=self.lr)
        fork.listen(weighting.observe)
        return weighting


class GradNormWeighting(nn.Module):
    """Σ_t w_t · λ_t · L_t; each backward pass moves λ down the slope of::

        Σ_t | G_t - mean G · r_t^alpha |,    G_t = |gradient of w_t · λ_t · L_t|,    r_t ~ L_t / (L_t at first)

    in units of mean G, with mean G · r_t^alpha taken for a constant and a mean of 1 of all r; λ adds up to T.

    Args:
        weights: w_t, factors from the config; a task with weight 0 takes no part.
    """

    weights_T: Tensor
    dynamic_T: Tensor
    """λ."""
    first_T: Tensor
    """Loss at the first step with one; 0 before."""
    losses_T: Tensor
    """Of this step."""

    def __init__(self, *, weights: Sequence[float], alpha: float, lr: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.lr = lr
        num_tasks = len(weights)
        self.register_buffer("weights_T", torch.tensor(weights, dtype=torch.float32), persistent=False)
        self.register_buffer("dynamic_T", torch.ones(num_tasks))
        self.register_buffer("first_T", torch.zeros(num_tasks))
        self.register_buffer("losses_T", torch.zeros(num_tasks), persistent=False)

    def forward(self, losses_T: Tensor) -> Tensor:
        """The weighted sum, a scalar."""
        if self.training:
            self.losses_T.copy_(mean_over_workers(losses_T.detach()))
            self.first_T.copy_(torch.where(self.first_T > 0, self.first_T, self.losses_T))
        return (self.weights_T * self.dynamic_T.clone() * losses_T).sum()

    @torch.no_grad()
    def observe(self, gram_TT: Tensor) -> None:
        """Move λ by the gradients of a step; a task without one in it keeps its λ."""
        norm_T = gram_TT.diagonal().sqrt()
        takes_part_T = (norm_T > 0) & (self.losses_T > 0)
        # Gradients of a mean over many rows are tiny, whatever they say of each other.
        norm_T = norm_T / _mean(norm_T, takes_part_T)
        progress_T = self.losses_T / self.first_T
        rate_T = progress_T / _mean(progress_T, takes_part_T)
        slope_T = torch.sign(norm_T - rate_T.pow(self.alpha)) * norm_T / self.dynamic_T
        moved_T = (self.dynamic_T - self.lr * slope_T).clamp_min(LEAST_WEIGHT)
        moved_T = moved_T * _mean(self.dynamic_T, takes_part_T) / _mean(moved_T, takes_part_T)
        self.dynamic_T.copy_(torch.where(takes_part_T & torch.isfinite(moved_T), moved_T, self.dynamic_T))

    def curves(self, names: Sequence[str]) -> Mapping[str, float]:
        """λ times the weight of the config."""
        return weight_curves(names, self.weights_T * self.dynamic_T)


def _mean(values_T: Tensor, takes_part_T: Tensor) -> Tensor:
    """Over the tasks that take part."""
    return torch.where(takes_part_T, values_T, 0.0).sum() / takes_part_T.sum()

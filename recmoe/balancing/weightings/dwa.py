"""DWA: dynamic weight average, more weight for tasks whose loss falls slowly.

Liu et al., CVPR 2019, https://arxiv.org/abs/1803.10704, equation 7. The paper compares epochs; a log of clicks is often
read once, so here it is stretches of so many steps.
"""

# T tasks

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from recmoe.balancing.fork import Fork
from recmoe.balancing.weightings.weighting import weight_curves
from recmoe.config import Config
from recmoe.workers import mean_over_workers


class DWAWeightingConfig(Config):
    """More weight for tasks whose loss falls slowly (Liu et al. 2019), times the ``weight`` of the task."""

    reads_gradients: ClassVar[bool] = False
    kind: Literal["dwa"] = "dwa"
    steps: PositiveInt = 100
    """Steps over which a loss is averaged, and that weights hold."""
    temperature: PositiveFloat = 2.0
    """Divides the ratios of losses: the higher, the more even the weights."""

    def build(self, *, weights: Sequence[float], outputs: Sequence[str], fork: Fork | None = None) -> "DWAWeighting":
        """The sum for tasks with these weights."""
        del outputs, fork
        return DWAWeighting(weights=weights, steps=self.steps, temperature=self.temperature)


class DWAWeighting(nn.Module):
    """Σ_t w_t · λ_t · L_t::

        λ_t = T · exp(r_t / temperature) / Σ_s exp(r_s / temperature),    r_t = mean L_t, last stretch / the one before

    All λ are 1 until there are two stretches.

    Args:
        weights: w_t, factors from the config; a task with weight 0 takes no part.
        steps: of a stretch.
    """

    weights_T: Tensor
    dynamic_T: Tensor
    """λ."""
    sums_T: Tensor
    """Losses of this stretch."""
    num_steps: Tensor
    """Of this stretch, so far."""
    last_T: Tensor
    """Mean losses of the last stretch; NaN before there is one."""

    def __init__(self, *, weights: Sequence[float], steps: int, temperature: float) -> None:
        super().__init__()
        self.steps = steps
        self.temperature = temperature
        num_tasks = len(weights)
        self.register_buffer("weights_T", torch.tensor(weights, dtype=torch.float32), persistent=False)
        self.register_buffer("dynamic_T", torch.ones(num_tasks))
        self.register_buffer("sums_T", torch.zeros(num_tasks))
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last_T", torch.full((num_tasks,), torch.nan))

    def forward(self, losses_T: Tensor) -> Tensor:
        """The weighted sum, a scalar; in training it counts as a step."""
        loss = (self.weights_T * self.dynamic_T.clone() * losses_T).sum()
        if self.training:
            self._observe(mean_over_workers(losses_T.detach()))
        return loss

    @torch.no_grad()
    def _observe(self, losses_T: Tensor) -> None:
        """Add a step, by what every worker knows; without a look at a number, which a GPU would be waited for."""
        self.sums_T += losses_T
        self.num_steps += 1
        is_over = self.num_steps == self.steps
        mean_T = self.sums_T / self.steps
        takes_part_T = self.weights_T > 0
        ratio_T = (mean_T / self.last_T / self.temperature).masked_fill(~takes_part_T, -torch.inf)
        found_T = takes_part_T.sum() * torch.softmax(ratio_T, dim=0)
        has_found = is_over & torch.isfinite(found_T).all()
        self.dynamic_T.copy_(torch.where(has_found, found_T, self.dynamic_T))
        self.last_T.copy_(torch.where(is_over, mean_T, self.last_T))
        self.sums_T.masked_fill_(is_over, 0.0)
        self.num_steps.masked_fill_(is_over, 0)

    def curves(self, names: Sequence[str]) -> Mapping[str, float]:
        """λ times the weight of the config."""
        return weight_curves(names, self.weights_T * self.dynamic_T)

"""Uncertainty: weights learned from each task's noise.

Kendall et al., CVPR 2018, https://arxiv.org/abs/1705.07115, equations 7 and 10.
"""

# T tasks

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from recmoe.balancing.fork import Fork
from recmoe.balancing.weightings.weighting import weight_curves
from recmoe.config import Config


class UncertaintyWeightingConfig(Config):
    """Weights learned from each task's noise (Kendall et al. 2018), times the ``weight`` of the task."""

    reads_gradients: ClassVar[bool] = False
    kind: Literal["uncertainty"] = "uncertainty"

    def build(
        self, *, weights: Sequence[float], outputs: Sequence[str], fork: Fork | None = None
    ) -> "UncertaintyWeighting":
        """The learned sum for tasks with these weights and outputs."""
        del fork
        return UncertaintyWeighting(weights=weights, outputs=outputs)


class UncertaintyWeighting(nn.Module):
    """Weights learned from each task's noise; s_t = log σ_t² is a parameter that starts at 0::

        binary       w_t · (L_t / σ_t²      + log σ_t)  =  w_t · (exp(−s_t) · L_t     + s_t / 2)
        regression   w_t · (L_t / (2 σ_t²)  + log σ_t)  =  w_t · (exp(−s_t) · L_t / 2 + s_t / 2)

    Args:
        weights: w_t, factors from the config; a task with weight 0 takes no part.
        outputs: what each task predicts, which decides the form of its likelihood: ``regression`` has a squared error.
    """

    weights_T: Tensor
    factors_T: Tensor

    def __init__(self, *, weights: Sequence[float], outputs: Sequence[str]) -> None:
        super().__init__()
        factors = [0.5 if output == "regression" else 1.0 for output in outputs]
        self.register_buffer("weights_T", torch.tensor(weights, dtype=torch.float32), persistent=False)
        self.register_buffer("factors_T", torch.tensor(factors, dtype=torch.float32), persistent=False)
        self.log_variance_T = nn.Parameter(torch.zeros(len(weights)))

    def forward(self, losses_T: Tensor) -> Tensor:
        """The weighted sum plus the price of noise, a scalar that may be negative."""
        terms_T = torch.exp(-self.log_variance_T) * self.factors_T * losses_T + 0.5 * self.log_variance_T
        return (self.weights_T * terms_T).sum()

    def curves(self, names: Sequence[str]) -> Mapping[str, float]:
        """What each task's loss is multiplied with."""
        return weight_curves(names, self.weights_T * self.factors_T * torch.exp(-self.log_variance_T.detach()))

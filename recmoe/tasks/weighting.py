"""Weighting: the losses of all tasks become the one loss that is differentiated."""

# T tasks

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recmoe.config import Config
from recmoe.tasks.task import LabelKind


class FixedWeighting(nn.Module):
    """Σ_t w_t · L_t.

    Args:
        weights: w_t, one per task.
    """

    weights_T: Tensor

    def __init__(self, *, weights: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("weights_T", torch.tensor(weights, dtype=torch.float32), persistent=False)

    def forward(self, losses_T: Tensor) -> Tensor:
        """The weighted sum, a scalar."""
        return (self.weights_T * losses_T).sum()


class UncertaintyWeighting(nn.Module):
    """Weights learnt from each task's noise; s_t = log σ_t² is a parameter that starts at 0::

        binary       w_t · (L_t / σ_t²      + log σ_t)  =  w_t · (exp(−s_t) · L_t     + s_t / 2)
        regression   w_t · (L_t / (2 σ_t²)  + log σ_t)  =  w_t · (exp(−s_t) · L_t / 2 + s_t / 2)

    Kendall et al., CVPR 2018, https://arxiv.org/abs/1705.07115, equations 7 and 10.

    Args:
        weights: w_t, factors from the config; a task with weight 0 takes no part.
        outputs: of each task, whether its loss is a squared error, which decides the form of its likelihood.
    """

    weights_T: Tensor
    factors_T: Tensor

    def __init__(self, *, weights: Sequence[float], outputs: Sequence[LabelKind]) -> None:
        super().__init__()
        factors = [0.5 if output == "regression" else 1.0 for output in outputs]
        self.register_buffer("weights_T", torch.tensor(weights, dtype=torch.float32), persistent=False)
        self.register_buffer("factors_T", torch.tensor(factors, dtype=torch.float32), persistent=False)
        self.log_variance_T = nn.Parameter(torch.zeros(len(weights)))

    def forward(self, losses_T: Tensor) -> Tensor:
        """The weighted sum plus the price of noise, a scalar that may be negative."""
        terms_T = torch.exp(-self.log_variance_T) * self.factors_T * losses_T + 0.5 * self.log_variance_T
        return (self.weights_T * terms_T).sum()


class FixedWeightingConfig(Config):
    """Each task's loss times the ``weight`` of the task."""

    kind: Literal["fixed"] = "fixed"

    def build(self, *, weights: Sequence[float], outputs: Sequence[LabelKind]) -> FixedWeighting:  # noqa: ARG002
        """The sum for tasks with these weights."""
        return FixedWeighting(weights=weights)


class UncertaintyWeightingConfig(Config):
    """Weights learnt from each task's noise (Kendall et al. 2018), times the ``weight`` of the task."""

    kind: Literal["uncertainty"] = "uncertainty"

    def build(self, *, weights: Sequence[float], outputs: Sequence[LabelKind]) -> UncertaintyWeighting:
        """The learnt sum for tasks with these weights and outputs."""
        return UncertaintyWeighting(weights=weights, outputs=outputs)


WeightingConfig = Annotated[FixedWeightingConfig | UncertaintyWeightingConfig, Field(discriminator="kind")]

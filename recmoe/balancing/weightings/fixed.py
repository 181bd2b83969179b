"""Fixed: each task's loss times the weight of the task in the config."""

# T tasks

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from recmoe.balancing.fork import Fork
from recmoe.config import Config


class FixedWeightingConfig(Config):
    """Each task's loss times the ``weight`` of the task."""

    reads_gradients: ClassVar[bool] = False
    kind: Literal["fixed"] = "fixed"

    def build(self, *, weights: Sequence[float], outputs: Sequence[str], fork: Fork | None = None) -> "FixedWeighting":
        """The sum for tasks with these weights."""
        del outputs, fork
        return FixedWeighting(weights=weights)


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

    def curves(self, names: Sequence[str]) -> Mapping[str, float]:
        """None: the weights are those of the config."""
        del names
        return {}

"""Weighting: what makes one loss of the losses of all tasks."""

# T tasks

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor


class Weighting(Protocol):
    """A module with the state of its weights, which a checkpoint keeps; called once in every training step."""

    def __call__(self, losses_T: Tensor) -> Tensor:
        """The loss that is differentiated, a scalar."""
        ...

    def curves(self, names: Sequence[str]) -> Mapping[str, float]:
        """The weights that it has found, by curve; none where they are those of the config."""
        ...


def weight_curves(names: Sequence[str], weights_T: Tensor) -> dict[str, float]:
    """``train/<task>/loss_weight`` of every task."""
    return {f"train/{name}/loss_weight": weight for name, weight in zip(names, weights_T.tolist(), strict=True)}

"""ErrorMeasure: how far predictions are from labels, in the measure that the kind of prediction is best in."""

# N rows

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from recmoe.tasks.scale import NATURAL, Scale

SMALLEST_PROBABILITY = 1e-7


@dataclass(frozen=True)
class ErrorMeasure:
    """A loss of predictions in natural units, and the constant that is best in it."""

    losses: Callable[[Tensor, Tensor], Tensor]
    """(predictions_N, labels_N) → loss_N, 0 where they are equal."""
    constant: Callable[[Tensor], Tensor]
    """labels_N → the prediction with the least mean loss."""
    is_of_mean: bool
    """Whether that is their mean."""


def _cross_entropy(predictions_N: Tensor, labels_N: Tensor) -> Tensor:
    p_N = predictions_N.clamp(SMALLEST_PROBABILITY, 1.0 - SMALLEST_PROBABILITY)
    return -torch.where(labels_N > 0.5, p_N.log(), torch.log1p(-p_N))


def _squared(predictions_N: Tensor, labels_N: Tensor) -> Tensor:
    return (predictions_N - labels_N).square()


def _gamma_deviance(predictions_N: Tensor, labels_N: Tensor) -> Tensor:
    ratio_N = (1.0 + labels_N.abs()) / (1.0 + predictions_N.abs())
    return 2.0 * (ratio_N - ratio_N.log() - 1.0)


CROSS_ENTROPY = ErrorMeasure(_cross_entropy, torch.mean, is_of_mean=True)
"""Of probabilities."""
SQUARED_ERROR = ErrorMeasure(_squared, torch.mean, is_of_mean=True)
"""Of expected values."""
GAMMA_DEVIANCE = ErrorMeasure(_gamma_deviance, torch.mean, is_of_mean=True)
"""Of expected amounts, counted from 1: it is least at the mean, as the squared error is, but errors count by the share
of the amount that they are. McCullagh & Nelder, Generalized Linear Models, 1989, section 8.3."""


def squared_error_on(scale: Scale) -> ErrorMeasure:
    """Of values that are the mean on a scale: on log1p near the median."""
    return ErrorMeasure(
        lambda predictions_N, labels_N: _squared(scale.to(predictions_N), scale.to(labels_N)),
        lambda labels_N: scale.back(scale.to(labels_N).mean()),
        is_of_mean=scale is NATURAL,
    )


def pinball(quantile: float) -> ErrorMeasure:
    """Of a quantile q: q · (y − p) where the label y lies above the prediction p, (1 − q) · (p − y) below.

    Koenker & Bassett, Econometrica 1978, https://doi.org/10.2307/1913643, section 2.
    """

    def losses(predictions_N: Tensor, labels_N: Tensor) -> Tensor:
        above_N = labels_N - predictions_N
        return torch.maximum(quantile * above_N, (quantile - 1.0) * above_N)

    return ErrorMeasure(losses, lambda labels_N: torch.quantile(labels_N.double(), quantile), is_of_mean=False)

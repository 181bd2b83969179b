"""Scale: where the values of a label are near to normal."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Transform = Literal["none", "log1p"]


@dataclass(frozen=True)
class Scale:
    """A monotone map and its inverse."""

    to: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]


def _same(values: Tensor) -> Tensor:
    return values


def _log1p(values: Tensor) -> Tensor:
    return torch.sign(values) * torch.log1p(values.abs())


def _expm1(values: Tensor) -> Tensor:
    return torch.sign(values) * torch.expm1(values.abs())


NATURAL = Scale(_same, _same)
"""The label's own."""
LOG1P = Scale(_log1p, _expm1)
"""sign(y) · log(1 + |y|), which also lets negative values through."""

SCALES: dict[Transform, Scale] = {"none": NATURAL, "log1p": LOG1P}

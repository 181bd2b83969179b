"""Precision: in which type a ranker multiplies matrices, and how far its predictions may be from training's."""

import copy
from typing import Literal

import torch

from recmoe.errors import ServingError
from recmoe.export.replay import TOLERANCE
from recmoe.model import MultiTaskRanker
from recmoe.products import has_fast_bf16

Precision = Literal["fp32", "bf16"]

TOLERANCES: dict[Precision, float] = {"fp32": TOLERANCE, "bf16": 2e-2}
"""Largest difference from a prediction of the trained model, as a part of it; as it is where that is below 1."""


def at_precision(model: MultiTaskRanker, precision: Precision, device: torch.device) -> MultiTaskRanker:
    """The model, or one of the same tables whose matrices are bf16, cast once for all requests.

    Args:
        device: the model's.

    Raises:
        ServingError: the device has no bf16 arithmetic.
    """
    if precision == "fp32":
        return model
    if not has_fast_bf16(device):
        what = "processor" if device.type == "cpu" else "GPU"
        raise ServingError(f"this {what} has no bf16 arithmetic; use precision fp32")
    reduced = copy.deepcopy(model, {id(model.input_layer): model.input_layer})
    for weight in reduced.model.parameters():
        # What has one dimension (a bias, a norm) is little work, and some of it is read in float32.
        if weight.dim() > 1:
            weight.data = weight.data.to(torch.bfloat16)
    return reduced

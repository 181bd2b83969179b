"""build_engine(): the engine of a model on a device."""

import copy
from typing import Any

import torch
from torch import nn

from recmoe.model import MultiTaskRanker
from recmoe.ranking.engine.captured import CapturedEngine
from recmoe.ranking.engine.device import check_float32, ranking_device
from recmoe.ranking.engine.eager import EagerEngine
from recmoe.ranking.engine.engine import Engine
from recmoe.ranking.engine.recording import CudaGraphs, PlainCalls
from recmoe.ranking.engine.together import TogetherEngine
from recmoe.ranking.precision import Precision, at_precision

BATCH_CANDIDATES = 8192
"""Candidates of waiting requests that a GPU ranks at once; on the CPU threads side by side are faster."""


def build_engine(
    model: MultiTaskRanker,
    *,
    device: str = "cpu",
    precision: Precision = "fp32",
    batch_candidates: int | None = None,
    records: bool | None = None,
) -> Engine:
    """The engine of a model.

    Args:
        model: on the CPU, over plain tables; a GPU gets a copy.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        precision: of matrix products.
        batch_candidates: of requests that wait, and are ranked together then; 0 for each by itself. By default
            ``BATCH_CANDIDATES`` on a GPU, and 0 on the CPU.
        records: whether forward passes of fixed sizes are recorded and repeated; by default on a GPU.

    Raises:
        ServingError: the device is not there, or cannot compute in that precision.
    """
    place = ranking_device(device)
    is_gpu = place.type == "cuda"
    if precision == "fp32":
        check_float32(place)
    moved = on_device(model, place) if is_gpu or records else model
    placed = at_precision(moved, precision, place)
    engine: Engine
    if records or (records is None and is_gpu):
        recorder = CudaGraphs(place) if is_gpu else PlainCalls()
        engine = CapturedEngine(placed, device=place, precision=precision, recorder=recorder)
    else:
        engine = EagerEngine(placed, device=place, precision=precision)
    if batch_candidates is None:
        batch_candidates = BATCH_CANDIDATES if is_gpu else 0
    return TogetherEngine(engine, max_candidates=batch_candidates) if batch_candidates else engine


def on_device(model: MultiTaskRanker, device: torch.device) -> MultiTaskRanker:
    """A copy of a model on a device; weights that are there already are shared.

    Tables go from the file that they are mapped from straight to the device.
    """
    moved: dict[int, Any] = {}
    for parameter in model.parameters():
        moved[id(parameter)] = nn.Parameter(parameter.detach().to(device), requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        moved[id(buffer)] = buffer.to(device)
    return copy.deepcopy(model, moved)


def explaining(engine: Engine, model: MultiTaskRanker, precision: Precision) -> tuple[MultiTaskRanker, Precision]:
    """What explains the predictions of an engine, and in which precision.

    On the CPU what predicts them; else the model that the engine's is a copy of, as it was trained.
    """
    return (engine.model, precision) if engine.device.type == "cpu" else (model, "fp32")

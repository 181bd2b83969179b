from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import Tensor

from recmoe.evaluation.predictions import Predictions
from recmoe.moe.balance import ExpertUsage
from recmoe.moe.balance.statistics import entropy
from recmoe.moe.level_use import LevelUse
from recmoe.moe.segment_use import SegmentUse
from recmoe.moe.similarity import similarity_of


def twelve_rows() -> Predictions:
    """Twelve rows in four groups; ctr on all of them, cvr on the six clicked, seconds on all but one."""
    click = np.array([1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0], dtype=np.float32)
    buy = np.array([1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0], dtype=np.float32)
    ctr = np.array([0.9, 0.2, 0.8, 0.3, 0.4, 0.6, 0.7, 0.1, 0.6, 0.5, 0.9, 0.2], dtype=np.float32)
    cvr = np.array([0.8, 0.5, 0.2, 0.5, 0.6, 0.5, 0.7, 0.5, 0.1, 0.5, 0.9, 0.5], dtype=np.float32)
    seconds = np.arange(12, dtype=np.float32)
    known = np.ones(12, dtype=np.float32)
    known[0] = 0
    return Predictions(
        task_names=("ctr", "cvr", "seconds"),
        predictions_NT=np.stack([ctr, cvr, seconds + 1], axis=1),
        labels_NT=np.stack([click, buy, seconds], axis=1),
        weights_NT=np.stack([np.ones(12, dtype=np.float32), click, known], axis=1),
        spaces={"ctr": "all", "cvr": "click", "seconds": "all"},
        kinds={"ctr": "binary", "cvr": "binary", "seconds": "regression"},
        groups_N=np.repeat([5, 6, 7, 8], 3),
        slices={"device": np.array(["phone", "tv", None, "phone"] * 3, dtype=object)},
    )


@pytest.fixture
def predictions() -> Predictions:
    """Twelve rows, a test's own to change."""
    return twelve_rows()


@pytest.fixture(scope="session")
def make_predictions() -> Callable[[], Predictions]:
    """The same rows for fixtures that live longer than a test."""
    return twelve_rows


GATES, EXPERTS = ("ctr", "cvr"), ("ctr.0", "cvr.0", "shared.0")
VISIBLE_GE = torch.tensor([[True, False, True], [False, True, True]])


def level_of(
    usage_SGE: Mapping[str, list[list[float]]], outputs: Mapping[str, Tensor] = MappingProxyType({})
) -> LevelUse:
    """A level of which every gate counts ten rows in every segment, each with the weights of the mean."""
    weights_SGE = torch.tensor(list(usage_SGE.values()), dtype=torch.float64)
    ones_SG = torch.ones_like(weights_SGE[:, :, 0])
    sums_SG3 = torch.stack([ones_SG, ones_SG, entropy(weights_SGE)], dim=2)
    segments = tuple(usage_SGE)
    num_rows = len(next(iter(outputs.values()), ()))
    return LevelUse(
        usage=ExpertUsage(0, GATES, EXPERTS, weights_SGE[0], VISIBLE_GE, 12),
        by_segment=SegmentUse(
            level=0,
            gates=GATES,
            experts=EXPERTS,
            visible_GE=VISIBLE_GE.clone(),
            segments=segments,
            num_rows_S=torch.full((len(segments),), 10),
            sums_SGK=10.0 * torch.cat([sums_SG3, weights_SGE], dim=2),
        ),
        similarity=similarity_of(outputs, dict.fromkeys(segments, torch.arange(num_rows))),
    )


@pytest.fixture(scope="session")
def make_level() -> Callable[..., LevelUse]:
    """From mean weights by segment, and outputs by expert: two tasks with an expert each, and a shared one."""
    return level_of

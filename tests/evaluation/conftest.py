from collections.abc import Callable

import numpy as np
import pytest

from recmoe.evaluation.predictions import Predictions


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

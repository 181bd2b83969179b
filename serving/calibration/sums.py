"""PredictionSums: what the predictions of a process add up to."""

# C candidates, T tasks

import threading
from collections import defaultdict

import numpy as np

from recmoe.ranking.ranked import Ranked
from serving.calibration.moments import Moments

_MAX_PREDICTION = 1e30
"""What is larger, or no number, is no prediction to take a mean of."""


class PredictionSums:
    """Adds up predictions; one vectorised sum per request."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, list[float]]] = defaultdict(dict)
        """By the model's digest and task, as Moments has them."""
        self._lock = threading.Lock()

    def observe(self, ranked: Ranked) -> None:
        """A request was ranked."""
        predictions_CT = ranked.predictions_CT
        nums_T, sums_T = [ranked.num_candidates] * len(ranked.task_names), predictions_CT.sum(axis=0)
        if not (np.abs(sums_T) < _MAX_PREDICTION).all():
            is_fit_CT = np.abs(predictions_CT) < _MAX_PREDICTION
            nums_T, sums_T = is_fit_CT.sum(axis=0).tolist(), predictions_CT.sum(axis=0, where=is_fit_CT)
        with self._lock:
            of_model = self._sums[ranked.model.digest]
            for task, n, s in zip(ranked.task_names, nums_T, sums_T.tolist(), strict=True):
                so_far = of_model.setdefault(task, [0, 0, 0.0, 0.0, 0.0, 0.0])
                for place, value in enumerate((1, n, s, n * n, n * s, s * s)):
                    so_far[place] += value

    def take(self, digest: str) -> dict[str, Moments]:
        """By task, what a model has predicted since the last call; what other models have is forgotten."""
        with self._lock:
            taken, self._sums = self._sums, defaultdict(dict)
        return {
            task: Moments(int(num_requests), int(num_candidates), *sums)
            for task, (num_requests, num_candidates, *sums) in taken.get(digest, {}).items()
        }

"""CalibrationWatch: compares what the champion predicts on average with what is expected, over a sliding window."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pydantic import BaseModel

from serving.calibration.moments import Moments, ServedPredictions
from serving.settings import ServeSettings

_logger = logging.getLogger(__name__)

_BASELINE_WINDOWS = 6
"""Windows after which the mean of all that was served in them is the baseline: an hour, by default."""
_MIN_REQUESTS = 30
"""From fewer the error of a mean is not known."""
_ERRORS = 3.0
"""Standard errors by which a mean must lie beyond the band."""

_TURNS_PER_WINDOW = 20
_LONGEST_TURN_S = 30.0

Source = Literal["given", "training", "baseline"]
"""Where an expectation comes from."""


def turn_s(settings: ServeSettings) -> float:
    """Seconds between two looks at what was predicted."""
    return min(_LONGEST_TURN_S, settings.calibration_window_s / _TURNS_PER_WINDOW)


class TaskCalibration(BaseModel):
    """What is known of a task of the champion."""

    task: str
    served: float | None
    """Mean prediction in the window; None where too little was served to say."""
    expected: float | None
    """None while the baseline is still to be found."""
    source: Source
    training: float | None
    """Mean prediction in training."""
    num_candidates: int
    """In the window."""
    warning: str | None
    """What is wrong, where ``served`` is too far from ``expected``."""


@dataclass
class Calibration:
    """What is known of the champion's tasks, for those who ask: metrics, probes, the model's description."""

    tasks: tuple[TaskCalibration, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """A line for each task that is out of its band."""
        return [task.warning for task in self.tasks if task.warning is not None]


class _Expectation(NamedTuple):
    source: Source
    rate: float | None
    relative_error: float = 0.0
    """The standard error, as a part of the rate."""


@dataclass
class _Baseline:
    """What was served first of a task."""

    since_s: float
    moments: Moments = field(default_factory=Moments)
    is_found: bool = False


class CalibrationWatch:
    """Takes what processes predicted, from one or from several, and says what is out of its band.

    A mean is out of it where it lies beyond the factor ``calibration_band`` by three standard errors, and within again
    where it is no farther than the factor's square root. Either is logged once. A baseline outlives its model: the next
    one is held to it too.

    Args:
        settings: band, window, and what is expected.
        clock: seconds.
    """

    def __init__(self, settings: ServeSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._model: ServedPredictions | None = None
        self._window: deque[tuple[float, Mapping[str, Moments]]] = deque()
        self._baselines: dict[str, _Baseline] = {}
        self._warnings: dict[str, str] = {}

    def take(self, served: ServedPredictions) -> None:
        """Add what was predicted since the last time; another model than before starts with an empty window."""
        now_s = self._clock()
        if self._model is not None and self._model.digest != served.digest:
            self._window.clear()
            self._warnings.clear()
            self._baselines = {task: one for task, one in self._baselines.items() if one.is_found}
        self._model = served
        self._window.append((now_s, served.moments))
        for task, moments in served.moments.items():
            baseline = self._baselines.setdefault(task, _Baseline(now_s))
            if not baseline.is_found:
                baseline.moments = baseline.moments.plus(moments)

    def check(self) -> list[TaskCalibration]:
        """What there is to say now, by task; nothing before something was served."""
        now_s, window_s = self._clock(), self._settings.calibration_window_s
        while self._window and self._window[0][0] < now_s - window_s:
            self._window.popleft()
        for baseline in self._baselines.values():
            is_over = now_s - baseline.since_s >= _BASELINE_WINDOWS * window_s
            baseline.is_found = baseline.is_found or (is_over and self._is_enough(baseline.moments))
        if self._model is None:
            return []
        tasks = dict.fromkeys([*self._model.training, *self._model.moments])
        return [self._judged(self._model, task) for task in tasks]

    def _is_enough(self, moments: Moments) -> bool:
        least = self._settings.calibration_candidates
        return moments.num_requests >= _MIN_REQUESTS and moments.num_candidates >= least

    def _judged(self, model: ServedPredictions, task: str) -> TaskCalibration:
        served = Moments()
        for _, by_task in self._window:
            served = served.plus(by_task.get(task, Moments()))
        expected = self._expected(model, task)
        is_enough = self._is_enough(served)
        if is_enough and expected.rate is not None:
            self._decide(model, task, served, expected)
        return TaskCalibration(
            task=task,
            served=served.mean if is_enough else None,
            expected=expected.rate,
            source=expected.source,
            training=model.training.get(task),
            num_candidates=served.num_candidates,
            warning=self._warnings.get(task),
        )

    def _expected(self, model: ServedPredictions, task: str) -> _Expectation:
        wanted = self._settings.expected_rates
        if isinstance(wanted, dict) and task in wanted:
            return _Expectation("given", wanted[task])
        if wanted == "training":
            return _Expectation("training", model.training.get(task))
        baseline = self._baselines.get(task)
        if baseline is None or not baseline.is_found:
            return _Expectation("baseline", None)
        found = baseline.moments
        return _Expectation("baseline", found.mean, found.standard_error / found.mean if found.mean else math.inf)

    def _decide(self, model: ServedPredictions, task: str, served: Moments, expected: _Expectation) -> None:
        """Warn where the mean has left its band, or stop warning where it is back."""
        band, rate = self._settings.calibration_band, expected.rate
        # Of an amount that may be negative there is no factor.
        if not band or rate is None or not rate > 0:
            return
        ratio = served.mean / rate
        error = _ERRORS * math.hypot(served.standard_error / rate, ratio * expected.relative_error)
        what = f"{model.name}{f' version {model.version}' if model.version is not None else ''}: task {task} predicts"
        said = (
            f"{what} {served.mean:.3g} on average, {ratio:.2f} times the {rate:.3g} that is expected "
            f"({expected.source}), over {self._settings.calibration_window_s:g} s with {served.num_candidates} "
            f"candidates in {served.num_requests} requests; in training it was {model.training.get(task, math.nan):.3g}"
        )
        if ratio - error > band or ratio + error < 1 / band:
            if task not in self._warnings:
                _logger.warning("calibration: %s", said)
            self._warnings[task] = said
        elif task in self._warnings and 1 / math.sqrt(band) <= ratio <= math.sqrt(band):
            del self._warnings[task]
            _logger.warning("calibration: within its band again, %s", said)

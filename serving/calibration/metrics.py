"""CalibrationMetrics: what Prometheus reads of mean predictions."""

import math

from prometheus_client import CollectorRegistry, Gauge

from serving.calibration.watch import Calibration

_OF = ("served", "expected", "training")


class CalibrationMetrics:
    """Means by task, and whether they are out of their band. All processes know the same; the newest is shown."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._means = Gauge(
            "recmoe_prediction_mean",
            "Mean prediction of the champion: served in the window, expected of it, and in training; NaN if unknown",
            ["task", "of"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._candidates = Gauge(
            "recmoe_prediction_mean_candidates",
            "Candidates in the window of the mean that is served",
            ["task"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._alarm = Gauge(
            "recmoe_calibration_alarm",
            "1 where the mean that is served is out of its band around the one that is expected",
            ["task"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._told: set[str] = set()

    def update(self, calibration: Calibration) -> None:
        """This is known now; what is not known any more is no alarm."""
        by_task = {task.task: task for task in calibration.tasks}
        self._told |= by_task.keys()
        for name in self._told:
            found = by_task.get(name)
            for of in _OF:
                mean = None if found is None else getattr(found, of)
                self._means.labels(name, of).set(math.nan if mean is None else mean)
            self._candidates.labels(name).set(0 if found is None else found.num_candidates)
            self._alarm.labels(name).set(found is not None and found.warning is not None)

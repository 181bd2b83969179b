"""CalibrationMonitor: looks every so often at what a process has predicted."""

import math
import threading
from collections.abc import Callable

from recmoe.ranking.ranked import Ranked
from serving.calibration.moments import ServedPredictions
from serving.calibration.sums import PredictionSums
from serving.calibration.watch import Calibration, CalibrationWatch, turn_s
from serving.models.holder import ServedModels
from serving.settings import ServeSettings


class CalibrationMonitor:
    """Adds up the champion's predictions, and hands them on from a thread of its own.

    Args:
        models: has the champion.
        known: gets what is found out.
        report: takes what was predicted where several processes serve, and ``known`` is filled by their parent; by
            default this process judges itself.
    """

    def __init__(
        self,
        models: ServedModels,
        settings: ServeSettings,
        *,
        known: Calibration,
        report: Callable[[ServedPredictions], None] | None = None,
    ) -> None:
        self._models, self._known, self._report = models, known, report
        self._watch, self._turn_s = CalibrationWatch(settings), turn_s(settings)
        self._sums = PredictionSums()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="calibration", daemon=True)

    def observe(self, ranked: Ranked) -> None:
        """The champion has ranked a request."""
        self._sums.observe(ranked)

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._is_closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_closed.wait(self._turn_s):
            served = self._served()
            if served is not None:
                (self._report or self._watch.take)(served)
            if self._report is None:
                self._known.tasks = tuple(self._watch.check())

    def _served(self) -> ServedPredictions | None:
        """What the champion has predicted since the last look."""
        champion = self._models.ranker
        moments = self._sums.take(champion.info.digest) if champion is not None else {}
        if champion is None or not moments:
            return None
        training = {task: mean for task, mean in champion.bundle.mean_predictions.items() if math.isfinite(mean)}
        info = champion.info
        return ServedPredictions(
            name=info.name, version=info.version, digest=info.digest, training=training, moments=moments
        )

"""ModelApp: the app of one process, over models that it loads and whose aliases it follows."""

import gc
import queue
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from prometheus_client import Metric

from recmoe.errors import ServingError
from recmoe.ranking.ranker import Ranker
from recmoe.ranking.score import unknown_name
from serving.app import MetricsPage, create_app
from serving.calibration.watch import Calibration
from serving.metrics import ServingMetrics
from serving.models.holder import ServedModels
from serving.models.live import LiveRequests
from serving.models.refusal import Refusal
from serving.models.source import ModelSource, store_watch_of, watch_of
from serving.models.split import UserSplit
from serving.orders import ModelEvents, ReadyModel, WorkerCommand
from serving.settings import ServeSettings

if TYPE_CHECKING:
    from recmoe.registry.registry import RegisteredBundle

SWITCH_S = 0.001
"""Seconds that Python code of a serving process runs before other threads may; at the usual 5 ms, probes would wait for
rankings."""


class ModelApp:
    """The API over a model that is still to be loaded, and what follows its alias once it is there.

    Args:
        source: what is served.
        others: what other processes serve; this one begins with it.
        refused: what other processes have refused.
        events: what is called when something becomes of the models.
        commands: what the watch of the aliases is told.
        port: that the process listens on; 0 where others do for it.
        on_failure: called where the model cannot be loaded; ``models.error`` says why.
        calibration, metrics_page: see ``create_app``.

    Raises:
        ServingError: settings need an alias, and the source names none.
    """

    def __init__(
        self,
        source: ModelSource,
        *,
        others: ReadyModel | None,
        refused: Sequence[Refusal],
        events: ModelEvents,
        commands: "queue.SimpleQueue[WorkerCommand]",
        port: int,
        on_failure: Callable[[], None],
        calibration: Calibration | None = None,
        metrics_page: MetricsPage | None = None,
    ) -> None:
        self._source, self._others, self._events, self._commands = source, others, events, commands
        self._port = port
        self._fetched: dict[str | None, str] = {}
        """What came from the artifact store for a version, until it has been told."""
        settings = source.settings
        self._split = UserSplit(share=settings.challenger_share, column=settings.split_by)
        self.models = ServedModels(
            self._load,
            live=LiveRequests(max_requests=settings.live_requests, max_bytes=settings.live_bytes),
            split=self._split,
            on_ready=self._ready,
            on_failure=on_failure,
        )
        self.models.refused = {one.role: one for one in refused}
        self._calibration = calibration or Calibration()
        self.app = create_app(
            self.models,
            settings,
            on_webhook=self._asked,
            metrics_page=metrics_page,
            calibration=self._calibration,
            on_served=events.served,
        )
        self.metrics: ServingMetrics = self.app.state.metrics
        self.watch = watch_of(
            source,
            self.models,
            metrics=self.metrics.models,
            commands=commands,
            on_found=self._found,
            on_swap=self._swapped,
            on_refusal=events.refused,
            on_forgiven=events.forgiven,
        )
        self._store_watch = store_watch_of(source, self.models, metrics=self.metrics)

    def close(self) -> None:
        """Follow the alias and the stores no more."""
        for watch in (self.watch, self._store_watch):
            if watch is not None:
                watch.close()

    def collected(self) -> list[Metric]:
        """What this process has counted, up to date."""
        self.metrics.use(self.models, self._calibration)
        return self.metrics.collected()

    def told(self, ranker: Ranker, *, loading_s: float = 0.0) -> ReadyModel:
        """Which model a ranker has, as others are told."""
        source = self._others.source if self._others is not None else self._source.source
        return ReadyModel.of(
            ranker,
            source=source,
            loading_s=loading_s,
            port=self._port,
            grpc_port=self._source.settings.grpc_port,
            fetched=self._fetched.pop(ranker.info.version, ""),
        )

    def _load(self) -> Ranker:
        ranker = self._source.load_as(self._others, on_found=self._found)
        self._split.settle(ranker)
        _check_rates(self._source.settings, ranker)
        return ranker

    def _found(self, found: "RegisteredBundle") -> None:
        """The bundle of a version is on this machine now."""
        transfer = found.transfer
        if transfer is not None and transfer.num_bytes > 0:
            self.metrics.models.fetched(transfer.num_bytes, is_delta=transfer.delta_of is not None)
            self._fetched[found.version] = str(transfer)

    def _ready(self, ranker: Ranker) -> None:
        _settle()
        self.metrics.ready()
        # Not only when this process is asked: of several, any one answers for all.
        self.metrics.models.update(self.models)
        self._events.ready(self.told(ranker, loading_s=self.models.loading_s))
        for watch in (self.watch, self._store_watch):
            if watch is not None:
                watch.start()

    def _swapped(self, ranker: Ranker) -> None:
        _settle()
        self._events.swapped(self.told(ranker))

    def _asked(self) -> None:
        """MLflow says that an alias has moved."""
        self._commands.put(WorkerCommand(looks=True))
        self._events.asked()


def _check_rates(settings: ServeSettings, ranker: Ranker) -> None:
    """ServingError where a rate is expected of a task that the model does not have."""
    given = settings.expected_rates
    unknown = [task for task in (given if isinstance(given, dict) else ()) if task not in ranker.task_names]
    if unknown:
        raise ServingError(f"expected_rates: {unknown_name('task', unknown[0], ranker.task_names)}")


def _settle() -> None:
    """What is there now stays: the collector need not look through it while requests wait."""
    gc.collect()
    gc.freeze()

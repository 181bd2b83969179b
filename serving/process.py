"""answer: rank in this process for all who connect, until it is stopped."""

import gc
import queue
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import torch
import uvicorn
from fastapi import FastAPI

from recmoe.errors import ServingError
from recmoe.products import fast_products
from recmoe.ranking.ranker import Ranker
from recmoe.ranking.score import unknown_name
from serving.app import create_app
from serving.calibration.watch import Calibration
from serving.connection import ConnectionLimits
from serving.draining import DrainingServer
from serving.metrics import ServingMetrics
from serving.models.holder import ServedModels
from serving.models.live import LiveRequests
from serving.models.refusal import Refusal
from serving.models.source import ModelSource, watch_of
from serving.models.split import UserSplit
from serving.models.watch import ModelWatch
from serving.orders import ModelEvents, ReadyModel, WorkerCommand
from serving.settings import ServeSettings

_SWITCH_S = 0.001
"""Seconds that Python code runs before other threads may; at the usual 5 ms, probes would wait for rankings."""
_OTHER_FILES = 200
"""Open files beside the connections."""


def answer(
    listener: socket.socket,
    source: ModelSource,
    *,
    others: ReadyModel | None = None,
    refused: Sequence[Refusal] = (),
    events: ModelEvents | None = None,
    commands: "queue.SimpleQueue[WorkerCommand] | None" = None,
    calibration: Calibration | None = None,
) -> None:
    """Serve a model on a socket that listens, until SIGINT or SIGTERM; follow its alias, if it has one.

    Args:
        others: what other workers serve; this one begins with it, and takes connections once it has loaded it. Without
            others probes are answered while the model is loaded.
        refused: what other workers have refused.
        commands: what the watch of the aliases is told.
        calibration: what a parent of several processes knows of the champion's predictions.

    Raises:
        RecmoeError: the model cannot be loaded.
    """
    process = _Process(listener, source, others, events or ModelEvents(), commands or queue.SimpleQueue(), calibration)
    process.models.refused = {one.role: one for one in refused}
    process.run()


class _Process:
    """What one process serves with; see ``answer``."""

    def __init__(
        self,
        listener: socket.socket,
        source: ModelSource,
        others: ReadyModel | None,
        events: ModelEvents,
        commands: "queue.SimpleQueue[WorkerCommand]",
        calibration: Calibration | None,
    ) -> None:
        self._listener, self._port = listener, listener.getsockname()[1]
        self._source, self._others, self._events, self._commands = source, others, events, commands
        settings = self._settings = source.settings
        self._split = UserSplit(share=settings.challenger_share, column=settings.split_by)
        self.models = ServedModels(
            self._load,
            live=LiveRequests(max_requests=settings.live_requests, max_bytes=settings.live_bytes),
            split=self._split,
            on_ready=self._ready,
            on_failure=lambda: setattr(self._server, "should_exit", True),
        )
        app = create_app(
            self.models, settings, on_webhook=self._asked, calibration=calibration, on_served=events.served
        )
        self._metrics: ServingMetrics = app.state.metrics
        self._watch = watch_of(
            source,
            self.models,
            metrics=self._metrics.models,
            commands=commands,
            on_swap=self._swapped,
            on_refusal=events.refused,
            on_forgiven=events.forgiven,
        )
        self._server = _server(app, settings, on_draining=self.models.drain)

    def run(self) -> None:
        """Until the process is told to stop; raises what loading does."""
        # From before the model is loaded: its replay is the proof.
        with fast_products(torch.device("cpu")):
            if self._others is not None:
                self.models.load()
            if self.models.error is None:
                _allow_files(2 * self._settings.max_connections + _OTHER_FILES)
                sys.setswitchinterval(_SWITCH_S)
                with _signals_end_quietly(), _retries_by_signal(self._watch):
                    self._server.run(sockets=[self._listener])
            if self._watch is not None:
                self._watch.close()
        if self.models.error is not None:
            raise self.models.error

    def _load(self) -> Ranker:
        ranker = self._source.load_as(self._others)
        self._split.settle(ranker)
        _check_rates(self._settings, ranker)
        return ranker

    def _ready(self, ranker: Ranker) -> None:
        _settle()
        self._metrics.ready()
        self._events.ready(self._told(ranker, loading_s=self.models.loading_s))
        if self._watch is not None:
            self._watch.start()

    def _swapped(self, ranker: Ranker) -> None:
        _settle()
        self._events.swapped(self._told(ranker))

    def _told(self, ranker: Ranker, *, loading_s: float = 0.0) -> ReadyModel:
        source = self._others.source if self._others is not None else self._source.source
        return ReadyModel.of(ranker, source=source, loading_s=loading_s, port=self._port)

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


def _server(app: FastAPI, settings: ServeSettings, *, on_draining: Callable[[], None]) -> DrainingServer:
    limits = ConnectionLimits(
        max_connections=settings.max_connections,
        head_s=settings.head_s,
        body_s=settings.body_s,
        response_s=settings.response_s,
        on_refused=app.state.metrics.refused,
    )
    return DrainingServer(
        _uvicorn_config(app, settings),
        limits=limits,
        delay_s=settings.drain_delay_s,
        grace_s=settings.drain_s,
        on_draining=on_draining,
    )


def _uvicorn_config(app: FastAPI, settings: ServeSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_s,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key,
    )


def _allow_files(num_files: int) -> None:
    """Let this process open so many files, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = num_files if hard == resource.RLIM_INFINITY else min(num_files, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def _signals_end_quietly() -> Iterator[None]:
    """Let a stop that was asked for end the call, not the process: uvicorn raises its signals again at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stopped(_number: int, _frame: FrameType | None) -> None:
        return

    before = {number: signal.signal(number, stopped) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _retries_by_signal(watch: ModelWatch | None) -> Iterator[None]:
    """Let SIGUSR1 ask for another look at the aliases, and at what was refused."""
    if watch is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def asked(_number: int, _frame: FrameType | None) -> None:
        watch.tell(WorkerCommand(looks=True, retries=True))

    before = signal.signal(signal.SIGUSR1, asked)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)

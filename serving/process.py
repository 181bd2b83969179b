"""answer: rank in this process for all who connect, until it is stopped."""

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

from recmoe.products import fast_products
from serving.calibration.watch import Calibration
from serving.connection import ConnectionLimits
from serving.draining import DrainingServer
from serving.model_app import SWITCH_S, ModelApp
from serving.models.refusal import Refusal
from serving.models.source import ModelSource
from serving.models.watch import ModelWatch
from serving.orders import ModelEvents, ReadyModel, WorkerCommand
from serving.settings import ServeSettings

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
    process = _Process(
        listener, source, others, refused, events or ModelEvents(), commands or queue.SimpleQueue(), calibration
    )
    process.run()


class _Process:
    """What one process serves with; see ``answer``."""

    def __init__(
        self,
        listener: socket.socket,
        source: ModelSource,
        others: ReadyModel | None,
        refused: Sequence[Refusal],
        events: ModelEvents,
        commands: "queue.SimpleQueue[WorkerCommand]",
        calibration: Calibration | None,
    ) -> None:
        self._listener, self._settings = listener, source.settings
        self._begins_loaded = others is not None
        self._served = ModelApp(
            source,
            others=others,
            refused=refused,
            events=events,
            commands=commands,
            port=listener.getsockname()[1],
            on_failure=lambda: setattr(self._server, "should_exit", True),
            calibration=calibration,
        )
        self._server = _server(self._served.app, source.settings, on_draining=self._served.models.drain)

    def run(self) -> None:
        """Until the process is told to stop; raises what loading does."""
        models = self._served.models
        # From before the model is loaded: its replay is the proof.
        with fast_products(torch.device(self._settings.device)):
            if self._begins_loaded:
                models.load()
            if models.error is None:
                _allow_files(2 * self._settings.max_connections + _OTHER_FILES)
                sys.setswitchinterval(SWITCH_S)
                with _signals_end_quietly(), _retries_by_signal(self._served.watch):
                    self._server.run(sockets=[self._listener])
            self._served.close()
        if models.error is not None:
            raise models.error


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
        is_shared=settings.workers > 1,
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

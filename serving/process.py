"""answer: rank in this process for all who connect, until it is stopped."""

import gc
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch
import uvicorn
from fastapi import FastAPI

from recmoe.products import fast_products
from recmoe.ranking.ranker import Ranker
from serving.app import create_app
from serving.connection import ConnectionLimits
from serving.draining import DrainingServer
from serving.holder import ModelHolder
from serving.orders import ReadyModel
from serving.settings import ServeSettings

_SWITCH_S = 0.001
"""Seconds that Python code runs before other threads may; at the usual 5 ms, probes would wait for rankings."""
_OTHER_FILES = 200
"""Open files beside the connections."""


def answer(
    listener: socket.socket,
    load: Callable[[], Ranker],
    settings: ServeSettings,
    *,
    source: str,
    listens_at_once: bool = True,
    on_ready: Callable[[ReadyModel], None] | None = None,
) -> None:
    """Serve what ``load`` makes on a socket that listens, until SIGINT or SIGTERM.

    Args:
        listens_at_once: whether probes are answered while the model is loaded; otherwise clients wait until it is.
        source: where ``load`` has the model from.

    Raises:
        RecmoeError: whatever ``load`` raises.
    """

    port = listener.getsockname()[1]

    def ready(ranker: Ranker) -> None:
        # What is there now stays: the collector need not look through it while requests wait.
        gc.collect()
        gc.freeze()
        app.state.metrics.ready()
        if on_ready is not None:
            on_ready(ReadyModel.of(ranker, source=source, loading_s=holder.loading_s, port=port))

    holder = ModelHolder(load, on_ready=ready, on_failure=lambda: setattr(server, "should_exit", True))
    app = create_app(holder, settings)
    limits = ConnectionLimits(
        max_connections=settings.max_connections,
        head_s=settings.head_s,
        body_s=settings.body_s,
        response_s=settings.response_s,
        on_refused=app.state.metrics.refused,
    )
    server = DrainingServer(
        _uvicorn_config(app, settings),
        limits=limits,
        delay_s=settings.drain_delay_s,
        grace_s=settings.drain_s,
        on_draining=holder.drain,
    )
    # From before the model is loaded: its replay is the proof.
    with fast_products(torch.device("cpu")):
        if not listens_at_once:
            holder.load()
        if holder.error is None:
            _allow_files(2 * settings.max_connections + _OTHER_FILES)
            sys.setswitchinterval(_SWITCH_S)
            with _signals_end_quietly():
                server.run(sockets=[listener])
    if holder.error is not None:
        raise holder.error


def _uvicorn_config(app: FastAPI, settings: ServeSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        ws="none",
        lifespan="on",
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

"""serve: a bundle or a registered version behind a port, until it is told to stop."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn

from recmoe.errors import ServingError
from recmoe.ranking.ranker import Ranker
from recmoe.runs.source import RUNS, load_ranker
from serving.app import create_app
from serving.holder import ModelHolder

_GRACE_S = 10
"""Seconds that requests under way get when the server is told to stop."""


def serve(
    source: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    runs: Path = RUNS,
    registry_uri: str | None = None,
    strict_fields: bool = False,
    on_ready: Callable[[Ranker], None] | None = None,
) -> None:
    """Answer ranking requests until SIGINT or SIGTERM; requests under way are finished.

    The port is taken first, then the model is loaded and replayed; ``/readyz`` says when it is there.

    Args:
        source: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or the folder of a bundle.
        runs, registry_uri, strict_fields: see ``load_ranker``.
        on_ready: called when the model has passed its replay.

    Raises:
        ServingError: the port is taken or the address cannot be listened on.
        BundleError, RegistryError: there is no such model, or it does not pass.
    """
    with _listen(host, port) as listener:
        holder = ModelHolder(
            lambda: load_ranker(source, runs=runs, registry_uri=registry_uri, strict_fields=strict_fields),
            on_ready=on_ready,
            on_failure=lambda: setattr(server, "should_exit", True),
        )
        config = uvicorn.Config(
            create_app(holder), log_level="warning", access_log=False, timeout_graceful_shutdown=_GRACE_S
        )
        server = uvicorn.Server(config)
        with _signals_end_quietly():
            server.run(sockets=[listener])
    if holder.error is not None:
        raise holder.error


@contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens; ServingError where the address is taken or not ours."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ServingError(f"cannot listen on {host}: {error.strerror or error}; choose another --host") from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(2048)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ServingError(
                f"port {port} on {host} cannot be used: {reason}; stop what listens there, or choose another --port"
            ) from error
        yield listener


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

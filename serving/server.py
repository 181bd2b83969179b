"""serve: a bundle or a registered version behind a port, until it is told to stop."""

import importlib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recmoe.errors import ServingError
from recmoe.runs.source import RUNS
from serving.settings import ServeSettings

if TYPE_CHECKING:
    from serving.orders import ModelEvents, ReadyModel

_BACKLOG = 2048
"""Connections that the system keeps until the server takes them."""


def serve(
    source: str,
    settings: ServeSettings | None = None,
    *,
    runs: Path = RUNS,
    on_ready: "Callable[[ReadyModel], None] | None" = None,
    on_swap: "Callable[[ReadyModel], None] | None" = None,
) -> None:
    """Answer ranking requests until SIGINT or SIGTERM; requests under way are finished.

    The port is taken first, then the model is loaded and replayed; ``/readyz`` says when it is there.

    Args:
        source: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or the folder of a run or a bundle.
        settings: how to listen, limits, and how many processes.
        runs: see ``load_ranker``.
        on_ready: called when the model has passed its replay.
        on_swap: called when another version answers, where the source is an alias.

    Raises:
        ServingError: the port is taken, the address cannot be listened on, a certificate or token cannot be read, or
            the GPU is not there.
        BundleError, RegistryError: there is no such model, or it does not pass.
    """
    wanted = settings or ServeSettings()
    check_certificate(wanted)
    _check_device(wanted)
    with _with_grpc_port(wanted) as wanted, listen(wanted.host, wanted.port) as listener:
        events = _events(on_ready, on_swap)
        if wanted.workers > 1:
            from serving.workers import Workers

            Workers(source, wanted, listener=listener, runs=runs, events=events).run()
            return
        from serving.models.source import ModelSource
        from serving.process import answer

        answer(listener, ModelSource(source, runs=runs, settings=wanted), events=events)


def _events(
    on_ready: "Callable[[ReadyModel], None] | None", on_swap: "Callable[[ReadyModel], None] | None"
) -> "ModelEvents":
    from serving.orders import ModelEvents

    return ModelEvents(ready=on_ready or (lambda _: None), swapped=on_swap or (lambda _: None))


def check_certificate(settings: ServeSettings) -> None:
    """ServingError where TLS cannot be done with the files given."""
    if settings.certificate is None:
        return
    try:
        # Without a password function, OpenSSL would ask for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.certificate, settings.key, password=lambda: "")
    except OSError as error:
        raise ServingError(
            f"certificate {settings.certificate} and key {settings.key} cannot be used: "
            f"{error.strerror or error}; give PEM files that belong together, the key without a password"
        ) from error


@contextmanager
def _with_grpc_port(settings: ServeSettings) -> Iterator[ServeSettings]:
    """The settings with the port for gRPC, one that is free where they leave it open, which stays the server's.

    Raises:
        ServingError: packages are missing, or the port is taken.
    """
    if settings.grpc_port is None:
        yield settings
        return
    try:
        for package in ("grpc", "google.protobuf"):
            importlib.import_module(package)
    except ImportError as error:
        raise ServingError("grpc_port needs the packages grpcio and protobuf: pip install 'recmoe[grpc]'") from error
    with listen(settings.host, settings.grpc_port, flag="--grpc-port") as listener:
        family = listener.family
    if settings.grpc_port:
        yield settings
        return
    # Bound, and deaf: whoever listens on this port has to be a process of this user that shares it on purpose.
    with socket.socket(family, socket.SOCK_STREAM) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((settings.host, 0))
        yield settings.model_copy(update={"grpc_port": holder.getsockname()[1]})


def _check_device(settings: ServeSettings) -> None:
    """ServingError where there is no such GPU."""
    if settings.device == "cpu":
        return
    # torch comes with it, and settings are read before the port is taken.
    from recmoe.ranking.engine import ranking_device

    ranking_device(settings.device)


@contextmanager
def listen(host: str, port: int, *, flag: str = "--port") -> Iterator[socket.socket]:
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
            listener.listen(_BACKLOG)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ServingError(
                f"port {port} on {host} cannot be used: {reason}; stop what listens there, or choose another {flag}"
            ) from error
        yield listener

"""serve_on_ray: the application of ``serving.ray_app`` on a cluster, for as long as a command runs."""

import io
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from recmoe.errors import ServingError
from recmoe.runs.source import RUNS
from serving.orders import ReadyModel
from serving.ray_app import NAME, ranking_app, ray_serve
from serving.server import check_certificate, listen
from serving.settings import ServeSettings


def serve_on_ray(
    source: str,
    settings: ServeSettings,
    *,
    session: AbstractContextManager[None],
    runs: Path = RUNS,
    on_ready: Callable[[ReadyModel], None] = lambda _: None,
) -> None:
    """Run the application until SIGINT or SIGTERM; then nothing of it is left on the cluster.

    Args:
        source, runs: see ``serving.server.serve``.
        session: in which this process is connected to Ray.
        on_ready: called when the replicas have passed their replay.

    Raises:
        StackError: Ray Serve is not installed.
        ServingError: a setting is not one of Ray's, the port is taken, Ray Serve runs already, or no replica starts.
    """
    serve = ray_serve()
    check_certificate(settings)
    source = source if source.startswith("models:") else str(Path(source).resolve())
    app = ranking_app(source, runs=runs.resolve(), settings=_for_everywhere(settings))
    port = _port(settings)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    with session:
        status = serve.status()
        if status.applications or status.proxies:
            raise ServingError("Ray Serve runs on this cluster already; add the application to its config file")
        with _started(serve, settings, port):
            handle = run_app(serve, app, name=NAME, route_prefix="/")
            on_ready(handle.standing.remote().result().model.model_copy(update={"port": port}))
            _wait_to_be_stopped()


def _for_everywhere(settings: ServeSettings) -> ServeSettings:
    """Settings that mean the same in another folder and another environment."""
    # Stores are text, files are paths.
    whole = {name: type(getattr(settings, name))(path.resolve()) for name, path in settings.paths.items()}
    registry = settings.registry or os.environ.get("MLFLOW_TRACKING_URI")
    return settings.model_copy(update={**whole, "registry": registry})


def _port(settings: ServeSettings) -> int:
    """Of the proxies. Ray on this machine alone: a port that is free, any for 0; ServingError where it is taken."""
    if os.environ.get("RAY_ADDRESS"):
        return settings.port
    with listen(settings.host, settings.port) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def _started(serve: Any, settings: ServeSettings, port: int) -> Iterator[None]:
    """Ray Serve with its proxies; at the end replicas answer what they have, and all of it goes."""
    options = {
        "host": settings.host,
        "port": port,
        "keep_alive_timeout_s": settings.keep_alive_s,
        "ssl_certfile": settings.certificate and str(settings.certificate.resolve()),
        "ssl_keyfile": settings.key and str(settings.key.resolve()),
    }
    try:
        serve.start(http_options=options)
        yield
    finally:
        # Ray prints as a failure that its controller has ended.
        with redirect_stdout(io.StringIO()):
            serve.shutdown()


def run_app(serve: Any, app: Any, *, name: str, route_prefix: str) -> Any:
    """A handle of the application once it runs; ServingError where no replica starts."""
    try:
        return serve.run(app, name=name, route_prefix=route_prefix)
    except RuntimeError as error:
        deployment = serve.status().applications[name].deployments[NAME]
        # The traceback of a replica; what a user can mend stands at its end.
        _, _, reason = deployment.message.rpartition("\nrecmoe.errors.")
        raise ServingError(reason.partition(": ")[2].strip() or f"{error}: {deployment.message}") from error


def _wait_to_be_stopped() -> None:
    """Until SIGINT or SIGTERM."""
    stopped = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in numbers}
    try:
        stopped.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

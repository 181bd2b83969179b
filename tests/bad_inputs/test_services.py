"""A taken port and a registry that does not answer are told at once, before anything is loaded or trained."""

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture
def silent_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An address where somebody takes calls and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        yield uri


@pytest.fixture
def closed_registry(monkeypatch: pytest.MonkeyPatch) -> str:
    """An address where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


ADVICE = "start it, set MLFLOW_TRACKING_URI (or tracking.uri) to one that runs, or unset it to use a local SQLite file"


def test_taken_port_is_told_before_the_model_is_loaded(recmoe: Command, shared_run: Path, taken_port: int) -> None:
    result = recmoe("serve", shared_run, "--port", taken_port)

    assert (result.code, result.out) == (1, "")
    assert result.errors == (
        f"error: port {taken_port} on 127.0.0.1 cannot be used: Address already in use; "
        "stop what listens there, or choose another --port\n"
    )


@pytest.mark.parametrize(
    "command",
    [("register", "{run}"), ("promote", "shop", "1"), ("rollback", "shop"), ("serve", "models:/shop@champion")],
)
def test_registry_that_is_not_there_is_named(
    recmoe: Command, shared_run: Path, closed_registry: str, command: tuple[str, ...]
) -> None:
    result = recmoe(*(part.format(run=shared_run) for part in command))

    assert (result.code, result.out) == (1, "")
    assert result.errors == (
        f"error: MLflow at {closed_registry} does not answer: [Errno 111] Connection refused; {ADVICE}\n"
    )


def test_training_asks_the_registry_first_and_goes_on_without_it(
    train: Command, log: Path, silent_registry: str
) -> None:
    arguments = (log / "config.yaml", "--run-dir", log / "run")
    start_s = time.monotonic()

    refused = train(*arguments, "tracking.kind=mlflow", "tracking.timeout_s=0.5")
    took_s = time.monotonic() - start_s
    has_begun = (log / "run/encoder").exists()
    resumed = train(*arguments, "--resume")

    assert refused.code == 1
    assert refused.errors == f"error: MLflow at {silent_registry} does not answer: timed out; {ADVICE}\n"
    assert took_s < 30
    assert not has_begun
    assert (resumed.code, resumed.errors) == (0, "")

"""MLflow's webhook: signed calls make the server look, others are refused."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from recmoe.errors import ServingError
from recmoe.ranking import Ranker
from serving.app import create_app
from serving.models.holder import ServedModels
from serving.models.webhook import read_secret
from serving.settings import ServeSettings
from tests.serving.models.webhook_calls import BODY, SECRET, signed

Ask = Callable[..., Any]
Serve = Callable[..., Any]


@pytest.fixture
def settings(tmp_path: Path) -> ServeSettings:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    (tmp_path / "tokens").write_text("token\n")
    return ServeSettings(webhook_secret_file=tmp_path / "secret", token_file=tmp_path / "tokens")


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def url(ranker: Ranker, settings: ServeSettings, calls: list[str], serve_app: Serve) -> Iterator[str]:
    models = ServedModels(lambda: ranker)
    models.load()
    with serve_app(create_app(models, settings, on_webhook=lambda: calls.append("call"))) as url:
        yield f"{url}/v1/models/webhook"


def test_signed_call_makes_the_server_look_and_needs_no_token(url: str, calls: list[str], ask: Ask) -> None:
    answer = ask(url, BODY, signed())

    assert (answer.status, answer.document) == (202, {"status": "looking"})
    assert calls == ["call"]


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        (lambda: {}, "the header X-MLflow-Delivery-Id is missing; give the webhook in MLflow the secret"),
        (lambda: {**signed(), "X-MLflow-Signature": ""}, "the header X-MLflow-Signature is missing"),
        (lambda: signed(secret="another"), "X-MLflow-Signature does not fit; give the webhook in MLflow the secret"),
        (lambda: signed(b"another body"), "X-MLflow-Signature does not fit"),
        (lambda: signed(at_s=time.time() - 4000), "X-MLflow-Timestamp is not within 300 s of this server's clock"),
        (lambda: {**signed(), "X-MLflow-Timestamp": "soon"}, "X-MLflow-Timestamp is not within 300 s"),
    ],
)
def test_call_that_is_not_mlflows_is_refused(
    url: str, calls: list[str], ask: Ask, headers: Callable[[], dict[str, str]], detail: str
) -> None:
    # Signed now: parameters are minutes older than the test.
    answer = ask(url, BODY, headers())

    assert answer.status == 401
    assert answer.document["detail"].startswith(detail)
    assert calls == []


def test_call_of_many_bytes_is_refused(url: str, ask: Ask) -> None:
    assert ask(url, b" " * 70_000, signed()).status == 413


def test_server_without_a_secret_takes_no_calls(ranker: Ranker, serve_app: Serve, ask: Ask) -> None:
    with serve_app(create_app(ranker)) as url:
        assert ask(f"{url}/v1/models/webhook", BODY, signed()).status == 404


def test_secret_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("\n")

    with pytest.raises(ServingError, match=r"webhook_secret_file .*secret is empty; write the secret of MLflow's"):
        read_secret(tmp_path / "secret")
    with pytest.raises(ServingError, match=r"webhook_secret_file .*absent cannot be read: No such file"):
        read_secret(tmp_path / "absent")


@pytest.fixture
def mlflow_server(mlflow_folder: Path) -> Iterator[str]:
    """MLflow's own server, which may call this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = f"-m mlflow server --host 127.0.0.1 --port {port} --workers 1 --backend-store-uri"
    process = subprocess.Popen(
        [sys.executable, *command.split(), f"sqlite:///{mlflow_folder}/mlflow.db"],
        env={
            **os.environ,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        },
    )
    url = f"http://127.0.0.1:{port}"
    end_s = time.monotonic() + 300
    while True:
        assert time.monotonic() < end_s
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
            break
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
    yield url
    process.terminate()
    process.wait(timeout=60)


@pytest.mark.slow
@pytest.mark.usefixtures("versions")
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
@pytest.mark.filterwarnings("ignore:Operation with range is deprecated")
def test_mlflow_tells_the_server_that_an_alias_has_moved(
    mlflow_server: str, start_server: Any, tmp_path: Path, wait_for: Any, ask: Ask
) -> None:
    from mlflow import MlflowClient
    from mlflow.entities.webhook import WebhookAction, WebhookEntity, WebhookEvent

    (tmp_path / "secret").write_text(SECRET)
    server = start_server(
        "models:/shop@champion", "--watch-s", "3600", "--webhook-secret-file", str(tmp_path / "secret")
    )
    client = MlflowClient(tracking_uri=mlflow_server, registry_uri=mlflow_server)
    client.create_webhook(
        name="serve",
        url=f"{server.url}/v1/models/webhook",
        events=[WebhookEvent(WebhookEntity.MODEL_VERSION_ALIAS, WebhookAction.CREATED)],
        secret=SECRET,
    )

    client.set_registered_model_alias("shop", "champion", "2")

    wait_for(lambda: ask(f"{server.url}/v1/models").document[0]["version"] == "2")

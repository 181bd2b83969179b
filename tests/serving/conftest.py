"""A model of a log whose ids are as products write them, and a server in this process that is asked over HTTP."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import uvicorn
from fastapi import FastAPI

from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker
from serving.app import create_app
from serving.connection import ConnectionLimits
from serving.draining import DrainingServer
from tests.ranking.drawn_models import small_config

BIG = 1460000000000000001
"""Two to the power of 53 and more: JavaScript would round it to …000."""

CONFIG = small_config(
    {
        "user_id": {"kind": "id", "side": "user"},
        "account": {"kind": "id", "side": "user"},
        "seen": {"kind": "id_list", "side": "user", "table": "item_id", "pooling": "sum"},
        "shop": {"kind": "id", "side": "context"},
        "item_id": {"kind": "id"},
        "price": {"kind": "numeric"},
    },
    {"score": "click", "buy": "buy"},
)


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP."""

    status: int
    kind: str
    text: str
    headers: Mapping[str, str]

    @property
    def document(self) -> Any:
        return json.loads(self.text)


Ask = Callable[..., Answer]
WriteModel = Callable[[Path, dict[str, Any], pa.Table], Path]


@pytest.fixture(scope="session")
def ids_bundle_path(tmp_path_factory: pytest.TempPathFactory, write_model: WriteModel) -> Path:
    """Ids beyond 2^53, texts with leading zeros, whole numbers that a gap made floats; a task is called score."""
    numbers = list(range(20))
    log = pa.table(
        {
            "user_id": pa.array([BIG + number for number in numbers], pa.int64()),
            "account": pa.array([f"{number:010d}" for number in numbers]),
            "seen": pa.array([[BIG + number] for number in numbers], pa.list_(pa.int64())),
            "shop": pa.array([None if number == 3 else float(number) for number in numbers]),
            "item_id": pa.array([BIG + number for number in numbers], pa.int64()),
            "price": pa.array([float(number) for number in numbers]),
            "click": pa.array([number % 2 for number in numbers]),
            "buy": pa.array([number % 3 == 0 for number in numbers]).cast(pa.int64()),
        }
    )
    return write_model(tmp_path_factory.mktemp("bundles") / "ids", CONFIG, log)


@pytest.fixture(scope="session")
def ids_bundle(ids_bundle_path: Path) -> ModelBundle:
    """The same, loaded."""
    return ModelBundle.load(ids_bundle_path)


Serve = Callable[[FastAPI], AbstractContextManager[str]]


@pytest.fixture(scope="session")
def serve_app() -> Serve:
    """Puts an app behind a port of this machine: ``with serve_app(app) as url``."""
    return _served


@pytest.fixture(scope="module")
def ranker(bundle: ModelBundle) -> Ranker:
    """Of the shop's model, as version 4."""
    return Ranker(bundle, version="4")


@pytest.fixture(scope="module")
def url(ranker: Ranker, serve_app: Serve) -> Iterator[str]:
    """Where the ranker of a file is served, its own or the one above."""
    with serve_app(create_app(ranker)) as url:
        yield url


@contextmanager
def _served(app: FastAPI) -> Iterator[str]:
    limits = ConnectionLimits(max_connections=100, head_s=30, body_s=30, response_s=30, on_refused=lambda _: None)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, loop="uvloop", log_level="critical", access_log=False, ws="none")
    server = DrainingServer(config, limits=limits, delay_s=0, grace_s=30, on_draining=lambda: None)
    port = listener.getsockname()[1]
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            thread.join(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def ask() -> Ask:
    """Sends a request over HTTP: ``ask(url, body, headers)``; bytes are sent as they are."""

    def send(url: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, headers=dict(headers or {}))
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return _answer(response.status, response)
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, error)

    return send


@pytest.fixture(scope="session")
def ask_bytes() -> Callable[[str, bytes, Mapping[str, str]], tuple[str, bytes]]:
    """Sends a request over HTTP for an answer that is no text: media type and bytes."""

    def send(url: str, body: bytes, headers: Mapping[str, str]) -> tuple[str, bytes]:
        request = urllib.request.Request(url, data=body, headers=dict(headers))
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.headers.get_content_type(), response.read()

    return send


def _answer(status: int, response: Any) -> Answer:
    kind = response.headers.get_content_type()
    return Answer(
        status, kind, response.read().decode(), {name.title(): value for name, value in response.headers.items()}
    )


@dataclass(frozen=True)
class RunningServer:
    """``recmoe serve`` as a process of its own."""

    process: "subprocess.Popen[str]"
    url: str


StartServer = Callable[..., RunningServer]


@contextmanager
def _started(folder: Path) -> Iterator[StartServer]:
    """Starts ``recmoe serve`` in a folder on a free port, and waits until it is ready; all are ended at the end."""
    processes = []

    def start(source: Path | str, *arguments: str) -> RunningServer:
        code = "from recmoe.cli import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", code, "serve", str(source), "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)},
            cwd=folder,
        )
        processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r" on (https?://\S+:\d+), API page", line)
        assert found is not None, f"the server did not get ready: {line!r}"
        return RunningServer(process, found[1])

    yield start
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts ``recmoe serve``: ``start_server(bundle, "--queue", "2")``."""
    with _started(tmp_path) as start:
        yield start


@pytest.fixture(scope="session")
def servers_in() -> Callable[[Path], AbstractContextManager[StartServer]]:
    """The same for servers that live longer than a test: ``with servers_in(folder) as start``."""
    return _started

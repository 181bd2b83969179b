"""The server as a process: it comes up, ranks, and goes when told to."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recmoe.errors import BundleError, ServingError
from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker, RankRequest
from recmoe.runs.source import load_ranker
from serving.server import serve

REQUEST = {"user": {"user_id": "u3"}, "candidates": {"item_id": [101, 102, 103], "price": [1, 2, 3]}}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def fetch(url: str, document: Any = None) -> Any:
    data = None if document is None else json.dumps(document).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=10) as response:
        return json.loads(response.read())


@pytest.fixture
def server(bundle_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    code = (
        "from pathlib import Path; from serving.server import serve; "
        f"serve({str(bundle_path)!r}, port={port}, runs=Path('runs'), strict_fields=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    url = f"http://127.0.0.1:{port}"
    deadline_s = time.monotonic() + 120
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            fetch(f"{url}/readyz")
            break
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    yield url, process
    process.kill()
    process.wait()


@pytest.mark.slow
def test_served_scores_equal_the_bundle_and_the_server_stops_when_told(
    server: tuple[str, subprocess.Popen[bytes]], bundle: ModelBundle
) -> None:
    url, process = server

    answer = fetch(f"{url}/v1/rank", REQUEST)
    with pytest.raises(urllib.error.HTTPError, match="422") as refused:
        fetch(f"{url}/v1/rank", {**REQUEST, "context": {"device": "phone"}})
    refused.value.close()
    process.send_signal(signal.SIGTERM)
    code = process.wait(timeout=30)

    expected = Ranker(bundle).rank(RankRequest.parse(REQUEST))
    assert [item["item_id"] for item in answer["items"]] == [item.item_id for item in expected.items]
    for item, other in zip(answer["items"], expected.items, strict=True):
        assert item["tasks"] == pytest.approx(other.tasks, abs=1e-5)
    assert code == 0


def test_taken_port_is_named_with_what_to_do(bundle_path: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        with pytest.raises(
            ServingError, match=f"port {port} on 127.0.0.1 cannot be used: Address already in use; stop"
        ):
            serve(str(bundle_path), port=port, runs=tmp_path)


def test_address_that_is_not_ours_is_named(bundle_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"cannot listen on no.such.host.invalid: .*; choose another --host"):
        serve(str(bundle_path), host="no.such.host.invalid", port=0, runs=tmp_path)


def test_model_that_cannot_be_loaded_ends_the_server_with_its_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is no bundle"):
        serve(str(tmp_path), port=free_port(), runs=tmp_path)


def test_bundle_from_a_folder_needs_no_registry(bundle_path: Path, tmp_path: Path) -> None:
    ranker = load_ranker(str(bundle_path), runs=tmp_path / "runs")

    assert ranker.info.version is None
    assert not (tmp_path / "runs").exists()

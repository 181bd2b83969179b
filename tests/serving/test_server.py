"""The server as a process: it comes up, ranks, and goes when told to."""

import http.client
import json
import signal
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from recmoe.errors import BundleError, ServingError
from recmoe.export.bundle import ModelBundle
from recmoe.products import has_fast_bf16
from recmoe.ranking import Ranker, RankRequest
from recmoe.ranking.precision import TOLERANCES
from recmoe.runs.source import load_ranker
from serving.server import serve
from serving.settings import ServeSettings
from tests.certificate import write_certificate

StartServer = Callable[..., Any]

REQUEST = {"user": {"user_id": "u3"}, "candidates": {"item_id": [101, 102, 103], "price": [1, 2, 3]}}


def fetch(url: str, document: Any = None) -> Any:
    data = None if document is None else json.dumps(document).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=30) as response:
        return json.loads(response.read())


class Client:
    """Asks one request after the other on a connection that it keeps, until no one listens any more."""

    def __init__(self, url: str) -> None:
        self.scores: list[list[float]] = []
        self.faults: list[str] = []
        self._host = url.removeprefix("http://")
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        body = json.dumps(REQUEST)
        connection = http.client.HTTPConnection(self._host, timeout=30)
        while True:
            try:
                connection.request("POST", "/v1/rank", body)
                response = connection.getresponse()
                answer = json.loads(response.read())
                if response.status != 200:
                    self.faults.append(f"{response.status} {answer}")
                self.scores.append([item["score"] for item in answer["items"]])
            except ConnectionRefusedError:
                connection.close()
                return
            except (OSError, http.client.HTTPException) as error:
                self.faults.append(repr(error))
                connection.close()

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.mark.slow
def test_served_scores_equal_the_bundle_and_a_server_that_is_told_to_stop_drops_no_request(
    start_server: StartServer, bundle_path: Path, bundle: ModelBundle
) -> None:
    server = start_server(bundle_path, "--strict-fields", "--threads", "1", "--deadline-ms", "60000")
    answer = fetch(f"{server.url}/v1/rank", REQUEST)
    with pytest.raises(urllib.error.HTTPError, match="422") as refused:
        fetch(f"{server.url}/v1/rank", {**REQUEST, "context": {"device": "phone"}})
    refused.value.close()

    clients = [Client(server.url) for _ in range(4)]
    time.sleep(1)
    server.process.send_signal(signal.SIGTERM)
    for client in clients:
        client.join()
    code = server.process.wait(timeout=60)

    expected = Ranker(bundle).rank(RankRequest.parse(REQUEST))
    assert [item["item_id"] for item in answer["items"]] == [item.item_id for item in expected.items]
    for item, other in zip(answer["items"], expected.items, strict=True):
        assert item["tasks"] == pytest.approx(other.tasks, abs=1e-5)
    assert code == 0
    assert [client.faults for client in clients] == [[]] * 4
    assert all(client.scores for client in clients)
    for scores in (scores for client in clients for scores in client.scores):
        assert scores == pytest.approx([item.score for item in expected.items], abs=1e-5)


@pytest.mark.slow
def test_server_with_certificate_and_tokens_answers_those_who_know_one(
    start_server: StartServer, bundle_path: Path, tmp_path: Path
) -> None:
    certificate, key = write_certificate(tmp_path)
    (tmp_path / "tokens").write_text("first\nsecond\n")
    server = start_server(
        bundle_path, "--certificate", str(certificate), "--key", str(key), "--token-file", str(tmp_path / "tokens")
    )
    url = server.url.replace("127.0.0.1", "localhost")
    trusting = ssl.create_default_context(cafile=str(certificate))

    def ask(path: str, token: str | None = None) -> int:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            request = urllib.request.Request(f"{url}{path}", headers=headers)
            with urllib.request.urlopen(request, timeout=30, context=trusting) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    statuses = [ask("/readyz"), ask("/v1/models"), ask("/v1/models", "third"), ask("/v1/models", "second")]
    server.process.send_signal(signal.SIGTERM)

    assert server.url.startswith("https://")
    assert statuses == [200, 401, 401, 200]
    assert server.process.wait(timeout=60) == 0


def test_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    key.write_text("no key")

    with pytest.raises(ServingError, match=r"server.pem and key .*server.key cannot be used: .*; give PEM files"):
        serve(str(tmp_path), ServeSettings(certificate=certificate, key=key, port=0))


def test_taken_port_is_named_with_what_to_do(bundle_path: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        with pytest.raises(
            ServingError, match=f"port {port} on 127.0.0.1 cannot be used: Address already in use; stop"
        ):
            serve(str(bundle_path), ServeSettings(port=port), runs=tmp_path)


def test_address_that_is_not_ours_is_named(bundle_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"cannot listen on no.such.host.invalid: .*; choose another --host"):
        serve(str(bundle_path), ServeSettings(host="no.such.host.invalid", port=0), runs=tmp_path)


def test_gpu_that_is_not_there_is_refused_before_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)

    with pytest.raises(
        ServingError, match=r"device cuda: torch .* is built without CUDA; install .*or serve on the CPU"
    ):
        serve(str(tmp_path / "no model"), ServeSettings(port=0, device="cuda"), runs=tmp_path)


def test_requests_that_wait_are_ranked_together_and_answered_each_for_itself(
    start_server: StartServer, bundle_path: Path, bundle: ModelBundle
) -> None:
    server = start_server(bundle_path, "--batch-candidates", "100", "--threads", "4")
    ranker = Ranker.load(bundle)
    requests = [
        {"user": {"user_id": f"u{number}"}, "candidates": {"item_id": [101 + number], "price": [number or "dear"]}}
        for number in range(24)
    ]

    def ask(request: dict[str, Any]) -> Any:
        try:
            return fetch(f"{server.url}/v1/rank", request)["items"][0]["tasks"]
        except urllib.error.HTTPError as error:
            return json.loads(error.read())["field"]

    with ThreadPoolExecutor(8) as clients:
        refused, *answers = clients.map(ask, requests)

    assert refused == "candidates.price[0]"
    for request, tasks in zip(requests[1:], answers, strict=True):
        assert tasks == pytest.approx(ranker.rank(RankRequest.parse(request)).items[0].tasks, abs=1e-6)


def test_model_that_cannot_be_loaded_ends_the_server_with_its_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is no bundle"):
        serve(str(tmp_path), ServeSettings(port=0), runs=tmp_path)


def test_bundle_from_a_folder_needs_no_registry(bundle_path: Path, tmp_path: Path) -> None:
    ranker = load_ranker(str(bundle_path), runs=tmp_path / "runs")

    assert ranker.info.version is None
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.skipif(not has_fast_bf16(torch.device("cpu")), reason="the processor has no bf16 arithmetic")
def test_server_multiplies_in_bf16_where_asked(
    start_server: StartServer, bundle_path: Path, bundle: ModelBundle
) -> None:
    server = start_server(bundle_path, "--precision", "bf16")

    served = {item["item_id"]: item["tasks"] for item in fetch(f"{server.url}/v1/rank", REQUEST)["items"]}

    exact = {item.item_id: item.tasks for item in Ranker.load(bundle).rank(RankRequest.parse(REQUEST)).items}
    differences = [abs(served[item][task] - exact[item][task]) for item in exact for task in exact[item]]  # type: ignore[index]
    assert 0 < max(differences) < TOLERANCES["bf16"]

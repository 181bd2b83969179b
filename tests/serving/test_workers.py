"""Several processes behind one port: killed ones come back, counts are those of all, one signal ends them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from recmoe.errors import ServingError
from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker, RankRequest
from recmoe.ranking.items import ArrowStore
from serving.orders import ReadyModel, WorkerOrder, WorkerReport
from serving.server import serve
from serving.settings import ServeSettings

StartServer = Callable[..., Any]

ROOT = Path(__file__).parent.parent.parent
REQUEST = {"user": {"user_id": "u3"}, "candidates": {"item_id": [101, 102, 103], "price": [1, 2, 3]}}


def fetch(url: str, document: Any = None) -> str:
    data = None if document is None else json.dumps(document).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=60) as response:
        text: str = response.read().decode()
    return text


def number(page: str, name: str) -> float:
    return sum(float(found) for found in re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", page, re.MULTILINE))


def wait_for(is_so: Callable[[], bool]) -> float:
    """Seconds until it was so."""
    start_s = time.monotonic()
    while not is_so():
        assert time.monotonic() < start_s + 300
        time.sleep(0.05)
    return time.monotonic() - start_s


@pytest.mark.slow
def test_a_spare_worker_takes_the_place_of_one_that_is_killed_and_the_counts_are_those_of_all(
    start_server: StartServer, bundle_path: Path, bundle: ModelBundle
) -> None:
    server = start_server(bundle_path, "--workers", "2", "--threads", "1", "--deadline-ms", "60000")
    parent = psutil.Process(server.process.pid)
    wait_for(lambda: number(fetch(f"{server.url}/metrics"), "recmoe_workers") == 2)
    wait_for(lambda: len(parent.children()) == 3)
    *before, spare = sorted(parent.children(), key=lambda child: child.create_time())
    answers, num_lost = [], 0

    def ask() -> None:
        nonlocal num_lost
        try:
            answers.append(json.loads(fetch(f"{server.url}/v1/rank", REQUEST)))
        except OSError:
            num_lost += 1

    for _ in range(20):
        ask()
    before[0].send_signal(signal.SIGKILL)
    while len(answers) < 40:
        ask()
    wait_for(lambda: number(fetch(f"{server.url}/metrics"), "recmoe_workers") == 1)
    wait_for(lambda: number(fetch(f"{server.url}/metrics"), "recmoe_workers") == 2)
    wait_for(lambda: len(parent.children()) == 3)
    *after, another = sorted(parent.children(), key=lambda child: child.create_time())
    another.kill()
    wait_for(lambda: another not in parent.children() and len(parent.children()) == 3)
    for _ in range(20):
        ask()
    page = fetch(f"{server.url}/metrics")
    server.process.send_signal(signal.SIGTERM)
    code = server.process.wait(timeout=120)

    expected = [item.score for item in Ranker(bundle).rank(RankRequest.parse(REQUEST)).items]
    assert all([item["score"] for item in answer["items"]] == pytest.approx(expected, abs=1e-5) for answer in answers)
    # Only what the killed worker had in hand may be lost.
    assert num_lost <= 1
    assert [child.pid for child in after] == [before[1].pid, spare.pid]
    assert len(answers) <= number(page, "recmoe_rank_requests_total") <= len(answers) + num_lost
    assert number(page, "recmoe_rank_candidates_count") >= len(answers)
    assert code == 0
    assert not any(child.is_running() for child in after)


@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(start_server: StartServer, bundle_path: Path) -> None:
    server = start_server(bundle_path, "--workers", "2")
    children = psutil.Process(server.process.pid).children()

    server.process.kill()

    assert children
    wait_for(lambda: not any(child.is_running() for child in children))


@pytest.mark.slow
def test_model_that_cannot_be_loaded_ends_all_with_its_error(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="is no bundle"):
        serve(str(tmp_path), ServeSettings(port=0, workers=2), runs=tmp_path)


@pytest.mark.slow
def test_worker_serves_no_other_model_than_the_first_one_did(bundle_path: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        order = WorkerOrder(
            source=str(bundle_path),
            runs=tmp_path,
            settings=ServeSettings(),
            listener=listener.fileno(),
            reports=writing,
            model=ReadyModel(
                source=str(bundle_path), name="shop", version=None, digest="another", loading_s=1, start_s=1, port=1
            ),
        )
        worker = subprocess.Popen(
            [sys.executable, "-m", "serving.worker", str(bundle_path)],
            pass_fds=(listener.fileno(), writing),
            stdin=subprocess.PIPE,
            cwd=ROOT,
        )
        assert worker.stdin is not None
        worker.stdin.write(f"{order.model_dump_json()}\n".encode())
        worker.stdin.flush()
        code = worker.wait(timeout=120)
        worker.stdin.close()
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        report = WorkerReport.model_validate_json(pipe.readline())

    assert code == 1
    assert report.error is not None
    assert "has changed since the server was started; start the server anew" in report.error


@pytest.mark.slow
def test_workers_look_items_up_in_one_store(start_server: StartServer, bundle_path: Path, tmp_path: Path) -> None:
    bundle = ModelBundle.load(bundle_path)
    items = pa.table({"item_id": [101, 102], "price": [3.5, 4.0], "words": [["red"], ["silk"]]})
    ArrowStore.build(tmp_path / "items", items, bundle.encoder)
    given = ["--workers", "2", "--threads", "1", "--deadline-ms", "60000", "--items", str(tmp_path / "items")]
    server = start_server(bundle_path, *given, "--items-known-bytes", "1000000")
    wait_for(lambda: number(fetch(f"{server.url}/metrics"), "recmoe_workers") == 2)
    request = {"user": {"user_id": "u3"}, "context": {"hour": 12}, "candidates": {"item_id": [101, 102, 7]}}

    answers = [json.loads(fetch(f"{server.url}/v1/rank", request)) for _ in range(10)]

    rows = [*items.to_pylist(), {"item_id": 7}]
    expected = Ranker(bundle).rank(RankRequest.parse({**request, "candidates": rows}))
    tasks = {item.item_id: item.tasks for item in expected.items}
    for answer in answers:
        for item in answer["items"]:
            assert item["tasks"] == pytest.approx(tasks[item["item_id"]], abs=1e-5)
    page = fetch(f"{server.url}/metrics")
    assert number(page, 'recmoe_items_lookups_total{outcome="hit"}') == 20
    assert number(page, 'recmoe_items_lookups_total{outcome="miss"}') == 10
    assert number(page, "recmoe_items_known") == 2


@pytest.mark.slow
def test_connections_that_come_at_once_are_shared_among_workers(start_server: StartServer, bundle_path: Path) -> None:
    server = start_server(bundle_path, "--workers", "2", "--threads", "1")
    parent = psutil.Process(server.process.pid)
    wait_for(lambda: number(fetch(f"{server.url}/metrics"), "recmoe_workers") == 2)
    host, _, port = server.url.removeprefix("http://").partition(":")

    with ExitStack() as clients:
        for _ in range(24):
            clients.enter_context(socket.create_connection((host, int(port))))

        def shares() -> list[int]:
            found = [child.net_connections(kind="tcp") for child in parent.children()]
            return [sum(one.status == psutil.CONN_ESTABLISHED for one in of_child) for of_child in found]

        wait_for(lambda: sum(shares()) == 24)
        # Of a spare one too, which takes none.
        assert min(sorted(shares())[-2:]) >= 6

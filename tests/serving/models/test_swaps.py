"""``recmoe serve`` under requests while its alias moves: none fails, each answer is that of the version it names."""

import signal
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from tests.serving.models.clients import Clients

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

Versions = Any
StartServer = Callable[..., Any]
WaitFor = Callable[[Callable[[], bool]], None]
Number = Callable[[str, str], float]

QUICK = ("--watch-s", "0.2", "--deadline-ms", "120000", "--queue", "1000")
REQUESTS: list[dict[str, Any]] = [
    {
        "user": {"user_id": f"u{user}", "age": 20 + user},
        "candidates": [{"item_id": 100 + place, "price": place + user} for place in range(1, 2 + user)],
    }
    for user in range(5)
]


def assert_all_answers_are_those_of_their_version(clients: Clients, versions: Versions) -> None:
    expected = {
        (number, version): versions.scores(version, request)
        for version in versions.rankers
        for number, request in enumerate(REQUESTS)
    }
    assert clients.answers
    for number, answer in clients.answers:
        scores = [item["score"] for item in answer["items"]]
        assert scores == pytest.approx(expected[number, answer["model"]["version"]], abs=1e-5)
        assert answer["model"]["digest"] == versions.rankers[answer["model"]["version"]].info.digest


def test_no_request_fails_while_versions_are_promoted_refused_and_rolled_back(
    start_server: StartServer, versions: Versions, wait_for: WaitFor, number: Number, ask: Any
) -> None:
    versions.add()
    versions.add()
    (versions.bundle("4") / "dense.safetensors").write_bytes(b"")
    server = start_server("models:/shop@champion", "--threads", "2", *QUICK)

    def reached(version: str) -> None:
        before = clients.versions[version]
        wait_for(lambda: clients.versions[version] > before + 5)

    with Clients(server.url, REQUESTS) as clients:
        reached("1")
        for version in ("2", "3", "1", "2"):
            versions.registry.promote("shop", version)
            reached(version)
        versions.registry.promote("shop", "4")
        wait_for(lambda: bool(ask(f"{server.url}/readyz").document["refused"]))
        reached("2")
        for version in ("2", "1", "3"):
            versions.registry.rollback("shop")
            reached(version)
    page = ask(f"{server.url}/metrics").text
    server.process.send_signal(signal.SIGTERM)
    lines = [line.rstrip() for line in server.process.stdout]

    assert (clients.faults, clients.lost) == ([], [])
    assert_all_answers_are_those_of_their_version(clients, versions)
    assert clients.versions.keys() == {"1", "2", "3"}
    for version, count in clients.versions.items():
        assert number(page, f'recmoe_rank_requests_total{{code="200",model="shop",version="{version}"') == count
    assert number(page, 'recmoe_model_swaps_total{outcome="refused",role="champion"') == 1
    assert server.process.wait(timeout=120) == 0
    told = [line.split()[3] for line in lines if line.endswith("from now on")]
    assert told == ["2", "3", "1", "2", "1", "3"]


def test_killed_worker_begins_with_what_the_others_serve_and_all_follow_the_alias(
    start_server: StartServer, versions: Versions, wait_for: WaitFor, number: Number, ask: Any
) -> None:
    versions.add()
    (versions.bundle("3") / "dense.safetensors").write_bytes(b"")
    server = start_server("models:/shop@champion", "--workers", "2", "--threads", "1", *QUICK)
    parent = psutil.Process(server.process.pid)

    def metric(begin: str) -> float:
        return number(ask(f"{server.url}/metrics").text, begin)

    wait_for(lambda: metric("recmoe_workers") == 2)
    wait_for(lambda: len(parent.children()) == 3)
    *before, spare = sorted(parent.children(), key=lambda child: child.create_time())
    with Clients(server.url, REQUESTS) as clients:
        wait_for(lambda: clients.versions["1"] > 5)
        versions.registry.promote("shop", "2")
        wait_for(lambda: metric('recmoe_model_info{digest="' + versions.rankers["1"].info.digest + '"') == 0)
        old = clients.versions["1"]
        versions.registry.promote("shop", "3")
        wait_for(lambda: metric('recmoe_model_refused{role="champion",version="3"') == 1)
        before[0].send_signal(signal.SIGKILL)
        wait_for(lambda: metric("recmoe_workers") == 1)
        wait_for(lambda: metric("recmoe_workers") == 2)
        num_answers = len(clients.answers)
        wait_for(lambda: len(clients.answers) > num_answers + 50)
        versions_after = {answer["model"]["version"] for _, answer in clients.answers[num_answers:]}
    wait_for(lambda: len(parent.children()) == 3)
    *after, _ = sorted(parent.children(), key=lambda child: child.create_time())
    server.process.send_signal(signal.SIGTERM)

    assert clients.faults == []
    # Each client has one request under way when a worker is killed.
    assert len(clients.lost) <= clients.count
    assert_all_answers_are_those_of_their_version(clients, versions)
    assert clients.versions["1"] <= old + clients.count
    assert versions_after == {"2"}
    assert [child.pid for child in after] == [before[1].pid, spare.pid]
    assert server.process.wait(timeout=120) == 0

"""Hostile requests are counted, and a server refuses them: none is its fault, hangs, or takes a core for long."""

import json
import random
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fuzz.fuzz import FuzzSettings, fuzz, replay
from benchmarks.fuzz.mutations import changed_bytes, framings, mutated
from benchmarks.fuzz.openapi import run_schemathesis
from benchmarks.fuzz.tally import Tally
from benchmarks.fuzz.valid import ValidRequests
from benchmarks.fuzz.wire import CLOSED, GONE, HANG, NO_HTTP, Outcome, Sent, send
from recmoe.client import ServedModel
from recmoe.errors import ServingError

MODEL = ServedModel(
    name="shop",
    version=None,
    digest="0" * 64,
    created_at="",
    tasks=[],
    scores={},
    default_score="ctr",
    columns={"user": {"user_id": "string"}, "context": {}, "item": {"item_id": "int64", "words": "list<e: string>"}},
)


@pytest.fixture
def valid() -> ValidRequests:
    return ValidRequests.of(MODEL, num_candidates=2, seed=0)


def sent(name: str = "x", status: str = "/v1/rank") -> Sent:
    return Sent(name, status, (name.encode(),))


def test_same_seed_makes_the_same_requests_of_every_protocol(valid: ValidRequests) -> None:
    first, second = ([mutated(valid, draw) for _ in range(300)] for draw in (random.Random(1), random.Random(1)))

    assert first == second
    assert {one.route for one in first} >= {"/v1/rank", "/v1/rank (Arrow)", "/v2/models/shop/infer", "HTTP"}
    assert len({one.pieces for one in first}) > 200


def test_bytes_are_changed_in_every_way() -> None:
    found = {changed_bytes(bytes(range(200)), random.Random(seed))[0].split(" at ")[0] for seed in range(100)}

    assert found == {"bits", "cut", "gone", "put in", "twice", "number", "junk behind"}


def test_framings_have_names_of_their_own(valid: ValidRequests) -> None:
    names = [name for name, _, _ in framings(valid)]

    assert len(set(names)) == len(names) > 40


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 422 X\r\nContent-Length: 2\r\n\r\nno", "422"),
        (b"HTTP/1.0 200 X\r\n\r\nyes", "200"),
        (b"", CLOSED),
        (b"hello\r\n\r\n", NO_HTTP),
        (None, HANG),
    ],
)
def test_outcome_is_the_status_or_a_word(answer: bytes | None, status: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        if answer is None:
            assert send(address, sent(), limit_s=0.2).status == status
            return

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert send(address, sent(), limit_s=10).status == status
        thread.join()
        assert send(address, Sent("x", "y", (b"x",), hangs_up=True), limit_s=10).status == GONE


def test_tally_tells_faults_what_was_dear_and_how_memory_grows(tmp_path: Path) -> None:
    tally = Tally(limit_ms=100, candidate_ms=1)
    tally.add(sent("fine"), Outcome("200", 0.1), 0.01)
    tally.add(Sent("large", "/v1/rank", (b"large",), num_candidates=400), Outcome("200", 0.1), 0.45)
    tally.add(sent("dear"), Outcome("422", 0.1), 0.3)
    tally.add(sent("broken"), Outcome("500", 0.1, b"the server failed"), None)
    tally.add(sent("stuck"), Outcome(HANG, 30.0), None)
    tally.memory = [(second, 1000 * 2**20 + second * 2**20) for second in range(20)]

    tally.write(tmp_path)

    assert (tally.num_sent, tally.is_too_dear) == (5, True)
    assert [why for why, _ in tally.faults] == ["500: the server failed", "hang after 30.0 s"]
    assert [(round(one.cpu_ms), one.sent.name) for one in tally.worst] == [(300, "dear"), (50, "large"), (10, "fine")]
    assert tally.growth() == pytest.approx(2**20)
    page = (tmp_path / "fuzz.md").read_text()
    assert "| /v1/rank | 422 | 1 |" in page
    assert "memory: 1,000 MiB at first, 1,019 at last, +60.0 per minute in the second half" in page
    assert (tmp_path / "worst.bin").read_bytes() == b"dear"
    assert sorted(path.name for path in tmp_path.glob("fault*")) == ["fault_01.bin", "fault_02.bin"]
    assert json.loads((tmp_path / "fuzz.json").read_text())["statuses"][0] == ["/v1/rank", "200", 2]


def test_server_that_is_not_there_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(ServingError):
        fuzz(FuzzSettings(f"http://127.0.0.1:{port}"))


@pytest.mark.slow
def test_server_refuses_whatever_it_is_asked(
    bundle_path: Path, start_server: Callable[..., Any], tmp_path: Path
) -> None:
    server = start_server(bundle_path, "--head-s", "1", "--body-s", "1", "--grpc-port", "0")
    grpc_port = server.process.stdout.readline().split(":")[-1].strip()
    # Far above what anything takes on a machine of its own: this one may be shared.
    settings = FuzzSettings(server.url, grpc=f"127.0.0.1:{grpc_port}", num_requests=300, limit_ms=1500)

    tally = fuzz(settings)
    statuses, failures = run_schemathesis(server.url, seconds=15, seed=0)
    tally.write(tmp_path)
    again = replay(server.url, tmp_path / "worst.bin")

    print(tally.page())
    assert tally.faults == []
    assert not tally.is_too_dear
    assert failures == []
    assert again.status == tally.worst[0].status
    assert {route.partition(" ")[0] for route, _ in statuses} == {"OpenAPI"}
    assert {status for route, status in tally.statuses if route == "/v1/rank (Arrow)"} == {"200", "422"}
    assert {status for route, status in tally.statuses if route.startswith("gRPC")} <= {"OK", "INVALID_ARGUMENT"}
    assert server.process.poll() is None

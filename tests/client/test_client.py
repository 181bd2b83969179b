"""A call ends in time: with a ranking, or with an error that says why not."""

import datetime
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recmoe.client import RankClient, Ranking
from recmoe.errors import CallError, DeadlineError, RequestError, ServingError

CANDIDATES = [{"item_id": 17}]
BUSY = {"detail": "too many requests wait", "status": 429}


@contextmanager
def connected(faults: Any, *steps: Any, **settings: Any) -> Iterator[tuple[Any, RankClient]]:
    """A faulty server and a client of it."""
    with faults.server(*steps) as server, RankClient(server.url, **settings) as client:
        yield server, client


def test_refused_request_is_tried_again_when_the_server_asks(faults: Any) -> None:
    steps = (faults.answer(429, BUSY, Retry_After="1"), faults.answer(200, faults.ranking))
    with connected(faults, *steps) as (server, client):
        ranking = client.rank(candidates=CANDIDATES)

    first_s, second_s = server.times_s
    assert ranking.items[0].item_id == 17
    assert second_s - first_s >= 1.0


def test_wait_that_ends_after_the_deadline_is_not_begun(faults: Any) -> None:
    with connected(faults, faults.answer(503, BUSY, Retry_After="30")) as (server, client):
        start_s = time.monotonic()
        with pytest.raises(CallError, match="answered 503: too many requests wait") as refused:
            client.rank(candidates=CANDIDATES, deadline_ms=2000)
        took_s = time.monotonic() - start_s

    assert refused.value.status == 503
    assert took_s < 1
    assert len(server.requests) == 1


def test_tries_end(faults: Any) -> None:
    with (
        connected(faults, faults.answer(429, BUSY), retries=2) as (server, client),
        pytest.raises(CallError, match="429") as refused,
    ):
        client.rank(candidates=CANDIDATES)

    assert refused.value.status == 429
    assert len(server.requests) == 3


def test_connection_reset_before_an_answer_is_tried_again(faults: Any) -> None:
    with connected(faults, faults.reset, faults.answer(200, faults.ranking)) as (server, client):
        ranking = client.rank(candidates=CANDIDATES)

    assert ranking.model.version == "4"
    assert server.num_connections == 2


def test_server_that_always_resets_is_an_error_in_words(faults: Any) -> None:
    with (
        connected(faults, faults.reset, retries=1) as (server, client),
        pytest.raises(CallError, match=r"does not answer: (Connection reset by peer|Broken pipe|the conn)") as lost,
    ):
        client.rank(candidates=CANDIDATES)

    assert lost.value.status is None
    assert server.num_connections == 2


def test_server_that_comes_back_is_found(faults: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    started = threading.Event()

    def come_back() -> None:
        time.sleep(0.2)
        with socket.create_server(("127.0.0.1", port)) as listener:
            started.set()
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(faults.answer(200, faults.ranking))
                connection.recv(1)

    thread = threading.Thread(target=come_back, daemon=True)
    thread.start()
    with RankClient(f"http://127.0.0.1:{port}", retries=50) as client:
        ranking = client.rank(candidates=CANDIDATES)
    thread.join()

    assert started.is_set()
    assert ranking.items[0].score == 0.5


def test_server_that_is_not_there_is_an_error_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    with RankClient(f"http://127.0.0.1:{port}", retries=0) as client, pytest.raises(CallError) as absent:
        client.rank(candidates=CANDIDATES)

    assert str(absent.value) == f"http://127.0.0.1:{port} does not answer: Connection refused"


def test_answer_that_breaks_off_is_not_asked_for_again(faults: Any) -> None:
    whole = faults.answer(200, faults.ranking)

    def cut(connection: socket.socket) -> None:
        connection.sendall(whole[:-10])
        connection.close()

    with (
        connected(faults, cut) as (server, client),
        pytest.raises(CallError, match=r"its answer cannot be read: it ends after \d+ bytes"),
    ):
        client.rank(candidates=CANDIDATES)

    assert len(server.requests) == 1


def test_other_side_that_does_not_speak_http_is_told(faults: Any) -> None:
    with (
        connected(faults, b"220 mail.example ESMTP\r\n") as (_, client),
        pytest.raises(CallError, match="its answer cannot be read: 220 mail"),
    ):
        client.rank(candidates=CANDIDATES)


@pytest.mark.parametrize("is_begun", [False, True])
def test_slow_answer_ends_at_the_deadline_even_if_bytes_keep_coming(faults: Any, is_begun: bool) -> None:
    whole = faults.answer(200, faults.ranking)

    def drip(connection: socket.socket) -> None:
        for place in range(len(whole) if is_begun else 0):
            connection.sendall(whole[place : place + 1])
            time.sleep(0.05)
        time.sleep(0 if is_begun else 10)

    with connected(faults, drip) as (server, client):
        start_s = time.monotonic()
        with pytest.raises(DeadlineError, match="did not answer in time"):
            client.rank(candidates=CANDIDATES, deadline_ms=300)
        took_s = time.monotonic() - start_s

    # All of it would take ten seconds and more.
    assert 0.3 <= took_s < 5
    assert len(server.requests) == 1


def test_time_that_is_up_already_sends_nothing(faults: Any) -> None:
    with connected(faults, faults.answer(200, faults.ranking)) as (server, client), pytest.raises(DeadlineError):
        client.rank(candidates=CANDIDATES, deadline_ms=-3)

    assert server.requests == []


def test_server_is_told_what_is_left_of_the_deadline(faults: Any) -> None:
    steps = (faults.answer(503, BUSY, Retry_After="1"), faults.answer(200, faults.ranking))
    with connected(faults, *steps, timeout_s=3) as (server, client):
        client.rank(candidates=CANDIDATES)

    first, second = (_header(request, "X-Deadline-Ms") for request in server.requests)
    assert 2900 < int(first) <= 3000
    assert 900 < int(second) <= int(first) - 1000


def test_deadline_that_the_server_missed_is_a_deadline_error(faults: Any) -> None:
    with (
        connected(faults, faults.answer(504, {"detail": "12 ms late"})) as (server, client),
        pytest.raises(DeadlineError, match="answered 504: 12 ms late") as late,
    ):
        client.rank(candidates=CANDIDATES)

    assert late.value.status == 504
    assert len(server.requests) == 1


def test_wrong_request_names_its_field_and_is_not_sent_again(faults: Any) -> None:
    problem = {"detail": "candidates[0].price: expected a number", "field": "candidates[0].price", "status": 422}
    with connected(faults, faults.answer(422, problem)) as (server, client), pytest.raises(RequestError) as wrong:
        client.rank(candidates=CANDIDATES)

    assert wrong.value.field == "candidates[0].price"
    assert str(wrong.value) == "candidates[0].price: expected a number"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "document", "message"),
    [
        (401, {"detail": "give a token"}, "answered 401: give a token$"),
        (413, {"detail": "too many bytes"}, "answered 413: too many bytes$"),
        (422, {"detail": "who knows"}, "answered 422: who knows$"),
        (500, b"<html>oh</html>", "answered 500$"),
        (502, [1], "answered 502$"),
        (200, b"<html>", "answered what is not a ranking: .*; is it a server of recmoe"),
        (200, [1], "is not a ranking: expected an object, found list"),
        (200, {"request_id": None}, "is not a ranking: field model is missing"),
        (200, {"request_id": None, "model": 3}, "is not a ranking: field model: expected an object, found int"),
    ],
)
def test_other_answers_are_errors_with_their_status(faults: Any, status: int, document: Any, message: str) -> None:
    with (
        connected(faults, faults.answer(status, document)) as (server, client),
        pytest.raises(CallError, match=message) as failed,
    ):
        client.rank(candidates=CANDIDATES)

    assert failed.value.status == status
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("explanation", "message"),
    [
        (5, "expected an object, found int"),
        ({"tasks": {}}, "field gates is missing"),
        ({"tasks": {"ctr": {"unit": "log-odds"}}, "gates": []}, "field tasks: field predicted is missing"),
        ({"tasks": {}, "gates": [{"level": 0, "gate": "ctr"}]}, "field gates: field weights is missing"),
    ],
)
def test_explanation_of_another_shape_is_told(faults: Any, explanation: Any, message: str) -> None:
    item = {"item_id": 17, "score": 0.5, "tasks": {}, "explanation": explanation}
    with (
        connected(faults, faults.answer(200, {**faults.ranking, "items": [item]})) as (_, client),
        pytest.raises(CallError, match=f"is not a ranking: field items: {message}"),
    ):
        client.rank(candidates=CANDIDATES, explain=True)


def test_items_of_another_shape_are_told(faults: Any) -> None:
    with (
        connected(faults, faults.answer(200, {**faults.ranking, "items": [{}]})) as (_, client),
        pytest.raises(CallError, match="is not a ranking: field items: 'item_id'"),
    ):
        client.rank(candidates=CANDIDATES)


def test_early_refusal_of_a_long_body_is_read(faults: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            connection, _ = listener.accept()
            connection.recv(1000)
            connection.sendall(faults.answer(413, {"detail": "too many bytes"}, Connection="close"))
            connection.shutdown(socket.SHUT_WR)
            connection.close()

        thread = threading.Thread(target=refuse, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with RankClient(url, retries=0) as client, pytest.raises(CallError, match="answered 413: too many bytes"):
            client.rank(candidates=[{"item_id": "x" * 50_000_000}])
        thread.join()


def test_connections_are_kept_and_shared(faults: Any) -> None:
    with connected(faults, faults.answer(200, faults.ranking)) as (server, client):
        for _ in range(20):
            client.rank(candidates=CANDIDATES)

    assert len(server.requests) == 20
    assert server.num_connections == 1


def test_connection_closed_while_idle_costs_no_try(faults: Any) -> None:
    def answer_and_close(connection: socket.socket) -> None:
        connection.sendall(faults.answer(200, faults.ranking))
        connection.close()

    with connected(faults, answer_and_close, retries=0) as (server, client):
        for _ in range(5):
            client.rank(candidates=CANDIDATES)

    assert server.num_connections == 5


def test_connection_that_dies_as_the_request_arrives_costs_no_try(faults: Any) -> None:
    good = faults.answer(200, faults.ranking)
    with connected(faults, good, faults.reset, good, retries=0) as (server, client):
        client.rank(candidates=CANDIDATES)
        ranking = client.rank(candidates=CANDIDATES)

    assert ranking.items[0].item_id == 17
    assert len(server.requests) == 3


def test_server_that_wants_the_connection_closed_gets_a_new_one(faults: Any) -> None:
    step = faults.answer(200, faults.ranking, Connection="close")
    with connected(faults, step) as (server, client):
        client.rank(candidates=CANDIDATES)
        client.rank(candidates=CANDIDATES)

    assert server.num_connections == 2


def test_threads_share_a_client_and_few_connections_stay(faults: Any) -> None:
    def step(connection: socket.socket) -> None:
        time.sleep(0.02)
        connection.sendall(faults.answer(200, faults.ranking))

    rankings: list[Ranking] = []
    with connected(faults, step, num_idle=2) as (server, client):
        threads = [
            threading.Thread(target=lambda: rankings.extend(client.rank(candidates=CANDIDATES) for _ in range(5)))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        num_kept = len(client._pool._idle)

    assert len(rankings) == 40
    assert len(server.requests) == 40
    assert num_kept == 2


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_process_opens_a_connection_of_its_own(faults: Any) -> None:
    with connected(faults, faults.answer(200, faults.ranking)) as (server, client):
        client.rank(candidates=CANDIDATES)
        child = os.fork()
        if child == 0:
            os._exit(len(client.rank(candidates=CANDIDATES).items))
        _, status = os.waitpid(child, 0)
        client.rank(candidates=CANDIDATES)

    assert os.waitstatus_to_exitcode(status) == 1
    assert server.num_connections == 2


def test_request_is_what_was_given(faults: Any) -> None:
    with (
        faults.server(faults.answer(200, faults.ranking)) as server,
        RankClient(f"{server.url}/shop/", token="secret\n") as client,
    ):
        client.rank(
            user={"user_id": np.int64(2**60), "seen": np.array([1, 2]), "born": datetime.date(1990, 1, 2)},
            context={"at": np.datetime64("2026-01-31T10:00:00")},
            candidates={"item_id": (1, 2), "price": np.array([1.5, 2.5]), "cost": [Decimal("1.10"), None]},
            top_k=2,
            tasks=("ctr",),
            score="ctr",
            request_id="r1",
        )

    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /shop/v1/rank HTTP/1.1\r\n")
    assert _header(server.requests[0], "Authorization") == "Bearer secret"
    assert json.loads(body) == {
        "request_id": "r1",
        "user": {"user_id": 2**60, "seen": [1, 2], "born": "1990-01-02"},
        "context": {"at": "2026-01-31T10:00:00"},
        "candidates": {"item_id": [1, 2], "price": [1.5, 2.5], "cost": ["1.10", None]},
        "tasks": ["ctr"],
        "score": "ctr",
        "top_k": 2,
    }


@pytest.mark.parametrize("value", [object(), {1, 2}, {(1, 2): 3}])
def test_value_that_json_cannot_hold_is_told(value: Any) -> None:
    with (
        RankClient("http://127.0.0.1:1") as client,
        pytest.raises(RequestError, match="body: cannot be written as JSON"),
    ):
        client.rank(user={"x": value}, candidates=CANDIDATES)


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://x", "http://", "http://x:99999", "http://a..b", "http://x/?q=1", "http://[::1"]
)
def test_url_of_no_server_is_told(url: str) -> None:
    with pytest.raises(ServingError, match=r"is not the URL of a server.*; write http://HOST:PORT"):
        RankClient(url)


@pytest.mark.parametrize("token", ["", "a\nb", "schlüssel"])
def test_token_that_no_header_carries_is_told(token: str) -> None:
    with pytest.raises(ServingError, match="the token is empty or holds characters"):
        RankClient("http://x", token=token)


def test_health_says_why_not(faults: Any) -> None:
    loading = faults.answer(503, {"detail": "the model is being loaded and replayed"}, Retry_After="1")
    with connected(faults, loading, loading, faults.answer(200, {"status": "ready"})) as (server, client):
        not_ready, not_well, ready = client.ready(), client.health(), client.ready()
    with RankClient(server.url) as client:
        gone = client.health()

    assert not not_ready
    assert not_ready.detail == f"{server.url} answered 503: the model is being loaded and replayed"
    assert not not_well
    assert ready.is_ok
    assert ready.detail == "ready"
    assert (bool(gone), gone.detail) == (False, f"{server.url} does not answer: Connection refused")


def test_health_of_a_server_that_hangs_ends_in_time(faults: Any) -> None:
    with connected(faults, lambda _: time.sleep(1), timeout_s=0.2) as (server, client):
        health = client.health()

    assert (bool(health), health.detail) == (False, f"{server.url} did not answer in time")


def test_client_needs_nothing_but_python() -> None:
    code = (
        "import sys, recmoe.client\n"
        "print([m for m in ('torch', 'numpy', 'pyarrow', 'pydantic', 'httpx') if m in sys.modules])"
    )

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])

    assert (run.stdout.strip(), run.returncode) == ("[]", 0), run.stderr


def _header(request: bytes, name: str) -> str:
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    return next(line.split(": ", 1)[1] for line in lines if line.startswith(f"{name}:"))

"""More requests than the server can rank: some are refused, none is answered wrong or late, and probes go on."""

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest
from fastapi import FastAPI

from recmoe.errors import RequestError
from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker
from recmoe.ranking.clock import Clock
from recmoe.ranking.columns import DecodedRequest
from recmoe.ranking.ranked import Ranked
from serving.app import create_app
from serving.settings import ServeSettings

Ask = Callable[..., Any]
Serve = Callable[[FastAPI], AbstractContextManager[str]]

BIG = 1460000000000000001
REQUEST = {"user": {"user_id": BIG}, "candidates": [{"item_id": BIG, "price": 1.0}]}


class SlowRanker(Ranker):
    """A ranker that is held up until it may go on, and notes what it ranked."""

    def __init__(self, bundle: ModelBundle) -> None:
        super().__init__(bundle)
        self.may_go_on, self.has_begun = threading.Event(), threading.Semaphore(0)
        self.ranked: list[str | None] = []

    def rank_columns(
        self, requests: Sequence[DecodedRequest], *, clock: Clock | None = None
    ) -> list[Ranked | RequestError]:
        self.ranked += [request.options.request_id for request in requests]
        self.has_begun.release()
        assert self.may_go_on.wait(30)
        return super().rank_columns(requests, clock=clock)


@pytest.fixture
def ranker(ids_bundle: ModelBundle) -> Iterator[SlowRanker]:
    slow = SlowRanker(ids_bundle)
    yield slow
    slow.may_go_on.set()


@pytest.fixture
def url(ranker: SlowRanker, serve_app: Serve) -> Iterator[str]:
    settings = ServeSettings(
        threads=1, queue=1, deadline_ms=60_000, body_s=0.5, max_body_bytes=10_000_000, max_held_bytes=10_000_000
    )
    with serve_app(create_app(ranker, settings)) as url:
        yield url
        ranker.may_go_on.set()


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def queue_length(ask: Ask, url: str) -> float:
    return number(ask(f"{url}/metrics").text, "recmoe_rank_queue")


def number(page: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)
    return float(found[1]) if found else 0.0


def wait_for(is_so: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_requests_past_the_bound_are_refused_and_probes_are_answered(
    ask: Ask, url: str, ranker: SlowRanker, clients: ThreadPoolExecutor
) -> None:
    under_way = clients.submit(ask, f"{url}/v1/rank", {**REQUEST, "request_id": "first"})
    assert ranker.has_begun.acquire(timeout=30)
    queued = clients.submit(ask, f"{url}/v1/rank", {**REQUEST, "request_id": "second"})
    wait_for(lambda: queue_length(ask, url) == 1)

    refused = ask(f"{url}/v1/rank", {**REQUEST, "request_id": "third"})
    start_s = time.monotonic()
    probes = [ask(f"{url}{path}").status for path in ("/healthz", "/readyz", "/v1/models")]
    probes_s = time.monotonic() - start_s
    ranker.may_go_on.set()
    answers = [future.result() for future in (under_way, queued)]
    page = ask(f"{url}/metrics").text

    assert (refused.status, refused.kind) == (429, "application/problem+json")
    assert refused.headers["Retry-After"] == "1"
    assert "1 requests wait already; try again later" in refused.document["detail"]
    assert probes == [200, 200, 200]
    assert probes_s < 5
    assert [answer.document["request_id"] for answer in answers] == ["first", "second"]
    assert ranker.ranked == ["first", "second"]
    assert number(page, 'recmoe_refused_total{reason="queue_full"}') == 1
    assert number(page, 'recmoe_rank_requests_total{code="429",model="ids",version=""}') == 1
    assert number(page, 'recmoe_rank_latency_seconds_count{stage="queue"}') == 2
    waited_s = number(page, 'recmoe_rank_latency_seconds_sum{stage="queue"}')
    assert 0 < waited_s < number(page, 'recmoe_rank_latency_seconds_sum{stage="total"}')


def test_request_whose_deadline_passes_in_the_queue_is_not_ranked(
    ask: Ask, url: str, ranker: SlowRanker, clients: ThreadPoolExecutor
) -> None:
    under_way = clients.submit(ask, f"{url}/v1/rank", REQUEST)
    assert ranker.has_begun.acquire(timeout=30)
    late = clients.submit(ask, f"{url}/v1/rank", {**REQUEST, "request_id": "late"}, {"X-Deadline-Ms": "1000"})
    wait_for(lambda: queue_length(ask, url) == 1)
    time.sleep(1)
    ranker.may_go_on.set()

    assert under_way.result().status == 200
    assert late.result().status == 504
    assert "the deadline was 1000 ms (X-Deadline-Ms)" in late.result().document["detail"]
    assert "late" not in ranker.ranked


def test_answer_that_comes_after_its_deadline_is_none(
    ask: Ask, url: str, ranker: SlowRanker, clients: ThreadPoolExecutor
) -> None:
    late: Future[Any] = clients.submit(ask, f"{url}/v1/rank", REQUEST, {"X-Deadline-Ms": "1000"})
    assert ranker.has_begun.acquire(timeout=30)
    time.sleep(1)
    ranker.may_go_on.set()

    assert late.result().status == 504
    assert "ranked after" in late.result().document["detail"]


@pytest.mark.parametrize("given", ["soon", "0", "-1", "nan", "inf"])
def test_deadline_that_is_no_time_is_refused(ask: Ask, url: str, given: str) -> None:
    answer = ask(f"{url}/v1/rank", REQUEST, {"X-Deadline-Ms": given})

    assert (answer.status, answer.document["field"]) == (422, "X-Deadline-Ms")
    assert f'expected milliseconds above 0, found "{given}"' in answer.document["detail"]


def test_request_of_a_client_that_hung_up_is_not_ranked(
    ask: Ask, url: str, ranker: SlowRanker, clients: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    under_way = clients.submit(ask, f"{url}/v1/rank", REQUEST)
    assert ranker.has_begun.acquire(timeout=30)
    body = b'{"request_id": "gone", "candidates": [{"item_id": 1}]}'
    with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1]))) as connection:
        connection.sendall(b"POST /v1/rank HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        wait_for(lambda: queue_length(ask, url) == 1)
    wait_for(lambda: queue_length(ask, url) == 0)
    ranker.may_go_on.set()
    page = ask(f"{url}/metrics").text

    assert under_way.result().status == 200
    assert "gone" not in ranker.ranked
    assert number(page, 'recmoe_rank_requests_total{code="499",model="ids",version=""}') == 1
    assert "Traceback" not in caplog.text


def test_body_that_does_not_come_to_its_end_is_given_up(ask: Ask, url: str) -> None:
    with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=30) as connection:
        connection.sendall(b"POST /v1/rank HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        answer = connection.recv(2**16)
        assert connection.recv(2**16) == b""

    assert answer.startswith(b"HTTP/1.1 408 Request Timeout")
    assert b"the request did not arrive within 0.5 s" in answer
    assert number(ask(f"{url}/metrics").text, 'recmoe_refused_total{reason="slow_body"}') == 1


@pytest.mark.parametrize(
    "body",
    [b'{"candidates": [' + b"[]," * 2_000_000 + b"[]]}", b'{"user": ' + b"[" * 2_000_000],
    ids=["many values", "deep"],
)
def test_body_of_millions_of_values_is_refused_before_it_is_read(
    ask: Ask, url: str, ranker: SlowRanker, body: bytes
) -> None:
    start_s = time.process_time()
    answer = ask(f"{url}/v1/rank", body)
    used_s = time.process_time() - start_s

    assert (answer.status, answer.document["field"]) == (422, "body")
    assert "commas and opening brackets, at most 510000 are read; send fewer" in answer.document["detail"]
    assert used_s < 0.5
    assert ranker.ranked == []


def test_more_bytes_than_may_be_in_hand_are_refused_until_others_are_answered(
    ask: Ask, url: str, ranker: SlowRanker, clients: ThreadPoolExecutor
) -> None:
    large = json.dumps(REQUEST).encode() + b" " * 6_000_000
    under_way = clients.submit(ask, f"{url}/v1/rank", large)
    assert ranker.has_begun.acquire(timeout=30)

    refused = ask(f"{url}/v1/rank", large)
    ranker.may_go_on.set()
    statuses = [under_way.result().status, ask(f"{url}/v1/rank", large).status]

    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    assert "too many bytes of other requests are in hand; try again later" in refused.document["detail"]
    assert statuses == [200, 200]
    assert number(ask(f"{url}/metrics").text, 'recmoe_refused_total{reason="memory"}') == 1

"""Clients that are slow, many, or there when the server stops, over real connections."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn

from serving.connection import MAX_HEAD_BYTES, ConnectionLimits
from serving.draining import DrainingServer

END = b" HTTP/1.1\r\nHost: x\r\n"
LARGE_BYTES = 32 * 2**20


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the size of the body; /large with more than the system buffers, /slow after half a second."""
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    num_bytes = 0
    if scope["path"] not in ("/healthz", "/unread"):
        while (message := await receive())["type"] == "http.request":
            num_bytes += len(message["body"])
            if not message["more_body"]:
                break
    if scope["path"] == "/slow":
        await asyncio.sleep(0.5)
    body = b"x" * LARGE_BYTES if scope["path"] == "/large" else str(num_bytes).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@dataclass
class Server:
    """A server on a thread of this process."""

    port: int
    refused: list[str] = field(default_factory=list)
    stop: Callable[[], None] = lambda: None
    thread: threading.Thread = field(default_factory=threading.Thread)

    def connect(self, data: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.sendall(data)
        return connection

    def ask(self, data: bytes) -> bytes:
        """What comes back until the server hangs up."""
        with self.connect(data) as connection:
            return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    pieces = []
    while piece := connection.recv(2**20):
        pieces.append(piece)
    return b"".join(pieces)


@pytest.fixture
def server() -> Iterator[Server]:
    listener = socket.create_server(("127.0.0.1", 0))
    started = Server(listener.getsockname()[1])
    limits = ConnectionLimits(
        max_connections=2, head_s=1.0, body_s=1.0, response_s=1.0, on_refused=started.refused.append
    )
    config = uvicorn.Config(app, loop="uvloop", ws="none", lifespan="on", log_level="critical", access_log=False)
    running = DrainingServer(config, limits=limits, delay_s=0, grace_s=5, on_draining=lambda: None)
    started.thread = threading.Thread(target=running.run, args=([listener],))
    started.stop = lambda: setattr(running, "should_exit", True)
    started.thread.start()
    while not running.started:
        time.sleep(0.01)
    yield started
    started.stop()
    started.thread.join()


@pytest.mark.parametrize(
    ("sent", "status", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHos", b"HTTP/1.1 408 Request Timeout", "slow_head"),
        (b"\r\n", b"HTTP/1.1 408 Request Timeout", "slow_head"),
        (b"POST /unread" + END + b"Content-Length: 9\r\n\r\nhalf", b"HTTP/1.1 200 OK", "slow_body"),
    ],
    ids=["half a head", "no head", "half a body that nobody reads"],
)
def test_request_that_does_not_come_to_its_end_is_given_up(
    server: Server, sent: bytes, status: bytes, reason: str
) -> None:
    answer = server.ask(sent)

    assert answer.startswith(status)
    assert server.refused == [reason]


def test_connection_on_which_nothing_is_asked_is_closed_without_a_word(server: Server) -> None:
    assert server.ask(b"") == b""
    assert server.refused == []


def test_head_has_a_bound(server: Server) -> None:
    with server.connect(b"GET / HTTP/1.1\r\nX: ") as connection:
        connection.sendall(b"a" * (MAX_HEAD_BYTES + 1))
        answer = connection.recv(2**16)

    assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large")
    assert b"a head has at most 65536 bytes" in answer


def test_what_is_no_http_is_a_problem(server: Server) -> None:
    answer = server.ask(b"\x16\x03\x01 hello\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 400 Bad Request")
    assert b"application/problem+json" in answer


def test_client_that_reads_nothing_is_cut_off(server: Server) -> None:
    with server.connect(b"GET /large" + END + b"\r\n") as connection:
        wait_for(lambda: server.refused == ["slow_reader"])
        num_bytes = 0
        with suppress(ConnectionResetError):
            while piece := connection.recv(2**20):
                num_bytes += len(piece)

    assert num_bytes < LARGE_BYTES


def test_too_many_connections_are_refused_and_probes_are_not(server: Server) -> None:
    kept = [server.connect(b"GET /" + END + b"\r\n") for _ in range(2)]
    assert all(connection.recv(2**16).startswith(b"HTTP/1.1 200") for connection in kept)

    refused = server.ask(b"GET /" + END + b"\r\n")
    probe = server.ask(b"GET /healthz" + END + b"Connection: close\r\n\r\n")
    for connection in kept:
        connection.close()

    assert refused.startswith(b"HTTP/1.1 503 Service Unavailable")
    assert b"retry-after: 1" in refused
    assert probe.startswith(b"HTTP/1.1 200")
    assert server.refused == ["connections"]


def test_twice_too_many_connections_are_not_heard(server: Server) -> None:
    kept = [server.connect(b"GET /healthz" + END + b"\r\n") for _ in range(4)]
    assert all(connection.recv(2**16).startswith(b"HTTP/1.1 200") for connection in kept)

    with server.connect() as connection:
        assert connection.recv(1) == b""
    for connection in kept:
        connection.close()

    assert server.refused == ["connections"]


def test_offer_of_another_protocol_does_not_cost_the_body(server: Server) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"

    with server.connect(b"POST /" + END + offer + b"Content-Length: 5\r\n\r\nhello") as connection:
        answer = connection.recv(2**16)

    assert answer.endswith(b"\r\n\r\n5")


def test_client_that_is_refused_while_it_sends_gets_its_answer(server: Server) -> None:
    length = 4 * 2**20
    head = b"POST /unread" + END + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % length

    with server.connect(head) as connection:
        for _ in range(64):
            connection.sendall(b"x" * (length // 64))
        answer = read_all(connection)

    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer
    assert server.refused == []


def test_server_that_stops_answers_everyone_and_resets_no_one(server: Server) -> None:
    idle = server.connect(b"GET /" + END + b"\r\n")
    assert b"connection: close" not in idle.recv(2**16)
    under_way = server.connect(b"GET /slow" + END + b"\r\n")
    time.sleep(0.1)

    server.stop()
    time.sleep(0.3)
    idle.sendall(b"GET /" + END + b"\r\n")
    with idle, under_way:
        answers = [read_all(idle), read_all(under_way)]
    server.thread.join(10)

    assert [answer.startswith(b"HTTP/1.1 200") for answer in answers] == [True, True]
    assert all(b"connection: close" in answer for answer in answers)
    assert not server.thread.is_alive()
    with pytest.raises(ConnectionRefusedError):
        server.connect()


def wait_for(is_so: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.02)

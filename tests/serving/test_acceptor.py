"""Connections are accepted one by one, whatever becomes of them."""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
import uvloop

from serving.acceptor import Acceptor

T = TypeVar("T")


def run(talk: Coroutine[Any, Any, T]) -> T:
    """On the loop of servers."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(talk)


class Echo(asyncio.Protocol):
    """Sends back what it gets."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Listener:
    """A socket that listens; some accepts fail."""

    def __init__(self, errors: list[OSError]) -> None:
        self.real, self.errors = socket.create_server(("127.0.0.1", 0)), errors

    def accept(self) -> tuple[socket.socket, Any]:
        if self.errors:
            raise self.errors.pop()
        return self.real.accept()

    def setblocking(self, flag: bool) -> None:
        self.real.setblocking(flag)

    def fileno(self) -> int:
        return self.real.fileno()


def answers(errors: list[OSError], *, is_shared: bool, num_clients: int) -> list[bytes]:
    """What clients get that come at once."""
    listener = Listener(errors)

    async def talk() -> list[bytes]:
        acceptor = Acceptor(
            listener,  # type: ignore[arg-type]
            Echo,
            tls=None,
            num_open=lambda: 3,
            is_shared=is_shared,
        )
        acceptor.start()

        async def one(number: int) -> bytes:
            reader, writer = await asyncio.open_connection(*listener.real.getsockname()[:2])
            writer.write(b"%d" % number)
            answer = await reader.read(8)
            writer.close()
            await writer.wait_closed()
            return answer

        found = list(await asyncio.gather(*map(one, range(num_clients))))
        acceptor.close()
        await acceptor.arrived(10)
        return found

    with listener.real:
        return run(talk())


@pytest.mark.parametrize("is_shared", [False, True])
def test_all_who_come_at_once_are_served(is_shared: bool) -> None:
    assert answers([], is_shared=is_shared, num_clients=20) == [b"%d" % number for number in range(20)]


@pytest.mark.parametrize("error", [BlockingIOError, ConnectionAbortedError])
def test_a_client_that_another_process_took_or_that_left_is_passed_over(error: Callable[[], OSError]) -> None:
    assert answers([error()], is_shared=True, num_clients=3) == [b"0", b"1", b"2"]


def test_without_a_file_for_a_connection_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("serving.acceptor._PAUSE_S", 0.05)
    error = OSError(errno.EMFILE, "Too many open files")

    with caplog.at_level(logging.WARNING, logger="serving.acceptor"):
        found = answers([error], is_shared=False, num_clients=2)

    assert found == [b"0", b"1"]
    assert [record.getMessage() for record in caplog.records] == [
        "no connection could be accepted: Too many open files; the next try is in 0.05 s"
    ]


def test_a_client_that_never_shakes_hands_is_not_waited_for() -> None:
    async def talk() -> bytes:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            acceptor = Acceptor(listener, Echo, tls=tls, num_open=lambda: 0, is_shared=False)
            acceptor.start()
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            while not acceptor.num_arriving:
                await asyncio.sleep(0.01)
            acceptor.close()
            await acceptor.arrived(0.05)
            rest = await reader.read()
            writer.close()
            return rest

    assert run(asyncio.wait_for(talk(), 30)) == b""

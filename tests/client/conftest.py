"""A server that fails as it is told: what no healthy server does on demand."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

Step = bytes | Callable[[socket.socket], None]


class FaultyServer:
    """Answers the first request with the first step, and so on; the last step goes on for ever.

    A step is the bytes of an answer, or does something to the connection.
    """

    def __init__(self, listener: socket.socket, steps: Sequence[Step]) -> None:
        self._listener, self._steps = listener, list(steps)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.requests: list[bytes] = []
        """Head and body of every request."""
        self.times_s: list[float] = []
        """When each came."""
        self.num_connections = 0
        self._open: list[socket.socket] = []

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.num_connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for connection in self._open:
            connection.close()

    def _serve(self, connection: socket.socket) -> None:
        try:
            while (request := _read(connection)) is not None:
                self.requests.append(request)
                self.times_s.append(time.monotonic())
                step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
                if isinstance(step, bytes):
                    connection.sendall(step)
                else:
                    step(connection)
        except OSError:
            return


def _read(connection: socket.socket) -> bytes | None:
    """A request to its end; None where the other side has gone."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (piece := connection.recv(65536)):
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    length = int(lengths[0].split(b":")[1]) if lengths else 0
    while len(body) < length:
        if not (piece := connection.recv(65536)):
            return None
        body += piece
    return head + b"\r\n\r\n" + body


def reset(connection: socket.socket) -> None:
    """The system forgets the connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def answer(status: int, document: Any, **headers: str) -> bytes:
    """An answer with JSON in it; ``Retry_After="1"`` is a header."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


RANKING: dict[str, Any] = {
    "request_id": None,
    "model": {"name": "shop", "version": "4", "digest": "ab"},
    "score": {"name": "ctr", "formula": "ctr"},
    "items": [{"item_id": 17, "score": 0.5, "tasks": {"ctr": 0.5}}],
    "warnings": [],
    "timing_ms": {"total": 1.5},
}


class Faults:
    """What the tests of this folder ask of a faulty server."""

    ranking = RANKING
    answer = staticmethod(answer)
    reset = staticmethod(reset)

    @staticmethod
    @contextmanager
    def server(*steps: Step) -> Iterator[FaultyServer]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = FaultyServer(listener, steps)
            thread = threading.Thread(target=server.run, daemon=True)
            thread.start()
            yield server
            server.close()
            thread.join()


@pytest.fixture(scope="session")
def faults() -> Faults:
    return Faults()

"""Connection: one client over HTTP, which may be slow for so long and no longer.

uvicorn waits for ever for the rest of a head, for the rest of a body that no handler reads, and for a client that does
not read its answer; and its fast parser sets no bound to a head. The server asks each connection a few times a second.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

HEALTH = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
"""Pages that say whether the server is there and ready."""
PROBES = (*HEALTH, "/metrics")
"""Pages for those who watch the server; they are answered when others are refused."""
MAX_HEAD_BYTES = 65536
"""Bytes of a request's line and headers."""
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


@dataclass(frozen=True)
class ConnectionLimits:
    """What a client may take of a server."""

    max_connections: int
    """Open connections; beyond them only probes are answered, and beyond twice as many no one is."""
    head_s: float
    """Seconds for the head of a request to arrive."""
    body_s: float
    """Seconds for the rest of a body that is not read any more."""
    response_s: float
    """Seconds for an answer to be taken."""
    on_refused: Callable[[str], None]
    """Is called with why a client was refused or cut off."""


class Connection(HttpToolsProtocol):
    """uvicorn's connection with limits; that protocol is extended by inheriting from it.

    Args:
        limits: what the client may take.
        config, server_state, app_state, _loop: what uvicorn gives.
    """

    def __init__(
        self, *, limits: ConnectionLimits, config: Any, server_state: ServerState, app_state: Any, _loop: Any = None
    ) -> None:
        super().__init__(config=config, server_state=server_state, app_state=app_state, _loop=_loop)
        self._limits = limits
        self._head_since_s: float | None = None
        """When the head began that is not complete; on a new connection, when that was made."""
        self._body_since_s: float | None = None
        self._unsent_since_s: float | None = None
        self._num_head_bytes = 0
        self._is_surplus = False
        self._ends_after_body = False
        self.is_draining = False
        """Whether the next answer is the last on this connection."""

    @property
    def is_idle(self) -> bool:
        """Whether the client has asked for nothing that is still to be answered."""
        is_answered = self.cycle is None or self.cycle.response_complete
        return is_answered and self._num_head_bytes == 0 and self._body_since_s is None and not self.pipeline

    def end(self, cycle: RequestResponseCycle) -> None:
        """Hang up after the answer to a request, once its body is there, which was not needed: who is still sending it
        would find a connection that is reset, and no answer.
        """
        if self._body_since_s is not None and cycle is self.cycle:
            self._ends_after_body = True
        else:
            self.transport.close()

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._head_since_s = self.loop.time()
        num_open = len(self.connections)
        self._is_surplus = num_open > self._limits.max_connections
        if num_open > 2 * self._limits.max_connections:
            self._limits.on_refused("connections")
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._body_since_s is None:
            if self._head_since_s is None:
                self._head_since_s = self.loop.time()
            self._num_head_bytes += len(data)
            if b"pgrade" in data:
                # Java's client offers HTTP/2 with its first request, and the parser then throws the body away.
                data = _UPGRADE.sub(b"\r\nx-upgrd:", data, count=1)
        super().data_received(data)
        if self._head_since_s is not None and self._num_head_bytes > MAX_HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a head has at most {MAX_HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_since_s = self.loop.time()

    def on_headers_complete(self) -> None:
        self._head_since_s, self._num_head_bytes = None, 0
        self._body_since_s = self.loop.time()
        super().on_headers_complete()
        self.cycle.transport = _AnsweringTransport(self, self.cycle)  # type: ignore[assignment]
        if self.is_draining:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        self._body_since_s = None
        super().on_message_complete()
        if self._ends_after_body:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def shutdown(self) -> None:
        """Let the next answer be the last one; the server closes what stays idle."""
        self.is_draining = True
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def enforce(self, now_s: float) -> None:
        """Cut off a client that takes too long; ``now_s`` is the loop's time."""
        if self.transport.get_write_buffer_size() == 0:
            self._unsent_since_s = None
        elif self._unsent_since_s is None:
            self._unsent_since_s = now_s
        elif now_s - self._unsent_since_s > self._limits.response_s:
            self._limits.on_refused("slow_reader")
            self.transport.abort()
            return
        if self.transport.is_closing():
            return
        if self._head_since_s is not None and now_s - self._head_since_s > self._limits.head_s:
            if self._num_head_bytes:
                self._limits.on_refused("slow_head")
                self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the head did not arrive within {self._limits.head_s:g} s")
            else:
                self.transport.close()
        elif (
            self._body_since_s is not None
            and now_s - self._body_since_s > self._limits.body_s
            # A handler that reads a body sets its own time; this one was answered, and its rest is thrown away.
            and self.cycle.response_complete
        ):
            self._limits.on_refused("slow_body")
            self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self._is_surplus and cycle.scope["path"] not in PROBES:
            self._limits.on_refused("connections")
            app = _too_many_connections
        super()._start_asgi_task(cycle, app)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answer without the app, unless it is answering, and hang up."""
        if not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                body = _problem(status, detail)
                lines = [
                    f"HTTP/1.1 {int(status)} {status.phrase}",
                    "content-type: application/problem+json",
                    f"content-length: {len(body)}",
                    "connection: close",
                ]
                self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
            self.transport.close()


class _AnsweringTransport:
    """What an answer is written to: the connection's transport, but for how it ends."""

    def __init__(self, connection: Connection, cycle: RequestResponseCycle) -> None:
        self.write, self.is_closing = connection.transport.write, connection.transport.is_closing
        self.close = partial(connection.end, cycle)


async def _too_many_connections(_scope: Any, _receive: Any, send: Any) -> None:
    body = _problem(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections; close some, or try again later")
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        (b"retry-after", b"1"),
    ]
    await send({"type": "http.response.start", "status": int(HTTPStatus.SERVICE_UNAVAILABLE), "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _problem(status: HTTPStatus, detail: str) -> bytes:
    content = {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": detail}
    return json.dumps(content).encode()

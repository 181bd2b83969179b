"""ConnectionPool: HTTP/1.1 connections that are kept open, and one exchange over them that ends in time."""

import contextlib
import http.client
import io
import os
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    retry_after: str | None
    """The header of this name."""
    body: bytes


class UnansweredError(Exception):
    """Not one byte of an answer came: no server, or a connection that was closed before. Safe to try again."""


class BrokenAnswerError(Exception):
    """An answer began and broke off, or is not HTTP, or the other side is not who it should be."""


class ConnectionPool:
    """Connections to one server. Threads share it, and so may a process and its forks, which open their own.

    Args:
        host, port: of the server.
        tls: how to encrypt; None for plain HTTP.
        num_idle: connections that stay open while they are not needed.
    """

    def __init__(self, host: str, port: int, *, tls: ssl.SSLContext | None, num_idle: int) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._num_idle = num_idle
        # Appending to and popping from a deque needs no lock, which a fork might inherit closed.
        self._idle: deque[_Connection] = deque()
        self._process = os.getpid()
        self._is_closed = False

    def exchange(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes | None, deadline_s: float
    ) -> Answer:
        """Send a request and read the answer to its end.

        Args:
            deadline_s: when to give up, on the clock of ``time.monotonic``.

        Raises:
            UnansweredError: no byte of an answer came.
            BrokenAnswerError: the answer broke off or is not HTTP, or the certificate is not accepted.
            TimeoutError: the deadline passed.
        """
        assert not self._is_closed, "the client is closed"
        while (kept := self._take()) is not None:
            try:
                return self._exchange(kept, method, path, headers, body, deadline_s)
            except UnansweredError:
                # The server closed it while it was idle. That says nothing about the next one.
                continue
        connection = _Connection(self._host, self._port, tls=self._tls)
        return self._exchange(connection, method, path, headers, body, deadline_s)

    def close(self) -> None:
        """Close what is idle, and what is in use once it is answered."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> "_Connection | None":
        """The connection that was used last and is still open."""
        if self._process != os.getpid():
            # Two processes on one connection would read each other's answers.
            self._process, self._idle = os.getpid(), deque()
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if connection.is_open():
                return connection
            connection.close()

    def _give_back(self, connection: "_Connection") -> None:
        self._idle.append(connection)
        if len(self._idle) > self._num_idle or self._is_closed:
            try:
                self._idle.popleft().close()
            except IndexError:
                return

    def _exchange(
        self,
        connection: "_Connection",
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        deadline_s: float,
    ) -> Answer:
        is_kept = False
        try:
            connection.deadline_s = deadline_s
            connection.has_answered = False
            if connection.sock is None:
                connection.connect()
            # A server that refuses a long body may answer and close before it has read it: the answer says why.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, body=body, headers=dict(headers))
            response = connection.getresponse()
            answer = Answer(response.status, response.headers.get("Retry-After"), response.read())
            is_kept = not response.will_close
            return answer
        except TimeoutError:
            raise
        except ssl.SSLCertVerificationError as error:
            raise BrokenAnswerError(f"its certificate is not accepted: {error.verify_message}") from error
        except (OSError, http.client.HTTPException) as error:
            if connection.has_answered:
                raise BrokenAnswerError(f"its answer cannot be read: {_reason(error)}") from error
            raise UnansweredError(_reason(error)) from error
        finally:
            if is_kept:
                self._give_back(connection)
            else:
                connection.close()


class _Connection(http.client.HTTPConnection):
    """A connection whose every wait ends at the deadline of the call, however slowly bytes come."""

    def __init__(self, host: str, port: int, *, tls: ssl.SSLContext | None) -> None:
        super().__init__(host, port)
        self._tls = tls
        self.default_port = 80 if tls is None else 443
        self.deadline_s = 0.0
        self.has_answered = False
        """Whether a byte of the answer to the last request has come."""

    def connect(self) -> None:
        """Open it: the first address of the host that answers."""
        failure: OSError | None = None
        for family, kind, protocol, _, address in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
            plain = socket.socket(family, kind, protocol)
            try:
                plain.settimeout(self.left_s())
                plain.connect(address)
                # A request goes out in two pieces; the second must not wait until the first is confirmed.
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                plain.settimeout(self.left_s())
                opened = plain if self._tls is None else self._tls.wrap_socket(plain, server_hostname=self.host)
            except TimeoutError:
                plain.close()
                raise
            except OSError as error:
                plain.close()
                failure = error
                continue
            self.sock = cast(socket.socket, _TimedSocket(opened, self))
            return
        assert failure is not None
        raise failure

    def left_s(self) -> float:
        """Seconds until the deadline; TimeoutError after it."""
        left_s = self.deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s

    def is_open(self) -> bool:
        """Whether it can be used again: nothing may have come since the last answer, not even its end."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)


class _TimedSocket:
    """A socket as ``http.client`` uses it."""

    def __init__(self, opened: socket.socket, connection: _Connection) -> None:
        self._socket, self._connection = opened, connection

    def sendall(self, data: Any) -> None:
        self._socket.settimeout(self._connection.left_s())
        self._socket.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        return io.BufferedReader(_Incoming(self._socket, self._connection), 65536)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()


class _Incoming(io.RawIOBase):
    """The bytes that come over a connection. Closing it leaves the connection open."""

    def __init__(self, opened: socket.socket, connection: _Connection) -> None:
        self._socket, self._connection = opened, connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._socket.settimeout(self._connection.left_s())
        count = self._socket.recv_into(buffer)
        self._connection.has_answered |= count > 0
        return count


def _reason(error: Exception) -> str:
    """Why, in words: the system's where it has some."""
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection was closed before an answer"
    if isinstance(error, http.client.IncompleteRead):
        return f"it ends after {len(error.partial)} bytes"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__

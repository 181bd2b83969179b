"""Acceptor: takes connections off a socket that several processes listen on, so that each has its share of them."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

_logger = logging.getLogger(__name__)

_TURN_S = 0.001
"""Seconds that a process leaves the next connection to others after it has taken one."""
_OPEN_PER_TURN = 16
"""Open connections that make it leave the next one to others for one more turn."""
_MOST_S = 0.005
_PAUSE_S = 1.0
"""Seconds until the next try where the system has no file left for a connection."""


class Acceptor:
    """Accepts connection by connection for a loop.

    A loop's own server accepts all who wait in one go, and clients keep their connections: one process would serve most
    of them and others none. Here who has taken one leaves the next to others for a moment, the longer the more it has.

    Args:
        listener: a socket that listens, which other processes may have too.
        new_connection: makes the protocol of a connection.
        tls: of the server.
        num_open: says how many connections are open in this process.
        is_shared: whether other processes listen on the socket.
    """

    def __init__(
        self,
        listener: socket.socket,
        new_connection: Callable[[], asyncio.Protocol],
        *,
        tls: ssl.SSLContext | None,
        num_open: Callable[[], int],
        is_shared: bool,
    ) -> None:
        self._listener, self._new_connection, self._tls = listener, new_connection, tls
        self._num_open, self._is_shared = num_open, is_shared
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.TimerHandle | None = None
        self._arriving: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def start(self) -> None:
        """Accept from now on."""
        self._listener.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Accept no more; those whose TLS handshake is under way go on."""
        self._is_closed = True
        if self._next is not None:
            self._next.cancel()
        self._loop.remove_reader(self._listener)

    def take(self, client: socket.socket) -> None:
        """Serve a client that has been accepted."""
        task = self._loop.create_task(self._serve(client))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    @property
    def num_arriving(self) -> int:
        """Clients that have been accepted and are not served yet."""
        return len(self._arriving)

    async def arrived(self, time_s: float) -> None:
        """Wait until all who were accepted are served or have left; who takes longer for a TLS handshake is let go."""
        if self._arriving:
            await asyncio.wait(set(self._arriving), timeout=time_s)
        for task in self._arriving:
            task.cancel()

    def _listen(self) -> None:
        self._next = None
        if not self._is_closed:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            # Another process was faster, or the client has gone.
            return
        except OSError as error:
            _logger.warning("no connection could be accepted: %s; the next try is in %g s", error.strerror, _PAUSE_S)
            self._wait(_PAUSE_S)
            return
        self.take(client)
        if self._is_shared:
            self._wait(min(_MOST_S, _TURN_S * (1 + self._num_open() // _OPEN_PER_TURN)))

    def _wait(self, time_s: float) -> None:
        self._loop.remove_reader(self._listener)
        self._next = self._loop.call_later(time_s, self._listen)

    async def _serve(self, client: socket.socket) -> None:
        client.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(self._new_connection, client, ssl=self._tls)
        except OSError as error:
            client.close()
            _logger.info("a client left while it was accepted: %s", error)

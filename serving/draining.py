"""DrainingServer: uvicorn that is told to stop and leaves no one without an answer."""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import uvicorn

from serving.acceptor import Acceptor
from serving.connection import Connection, ConnectionLimits

_logger = logging.getLogger(__name__)

_LAST_REQUEST_S = 1.0
"""Seconds that a client may still send a request on a connection that it has open."""
_TURN_S = 0.02
_TURNS_PER_CHECK = 5
"""Turns of uvicorn's loop, ten a second, between two looks at slow clients."""


class DrainingServer(uvicorn.Server):
    """uvicorn's server with limits for clients; uvicorn is extended by inheriting from it.

    uvicorn closes idle connections at once: a client that is just sending finds its connection reset, and so does one
    that waits to be accepted. Here all who wait are accepted first, and each connection may send once more.

    Args:
        config: uvicorn's; its protocol is set here.
        limits: what a client may take.
        delay_s: seconds to go on accepting after being told to stop.
        grace_s: seconds for requests under way after that.
        on_draining: called when the server is told to stop.
        is_shared: whether other processes listen on its sockets too.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        limits: ConnectionLimits,
        delay_s: float,
        grace_s: float,
        on_draining: Callable[[], None],
        is_shared: bool = False,
    ) -> None:
        config.http = partial(Connection, limits=limits)  # type: ignore[assignment]
        super().__init__(config)
        self._delay_s, self._grace_s, self._on_draining = delay_s, grace_s, on_draining
        self._is_shared = is_shared
        self._acceptors: list[Acceptor] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin, and accept on sockets that listen."""
        await super().startup(sockets=[])
        for own in sockets or []:
            acceptor = Acceptor(
                own,
                self._new_connection,
                tls=self.config.ssl,
                num_open=lambda: len(self.server_state.connections),
                is_shared=self._is_shared,
            )
            acceptor.start()
            self._acceptors.append(acceptor)

    async def on_tick(self, counter: int) -> bool:
        if counter % _TURNS_PER_CHECK == 0:
            self._check_clients()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, answer what is there, close what stays idle."""
        self._on_draining()
        await self._turns(self._delay_s, until=lambda: False)
        await self._stop_accepting(sockets or [])
        await self._turns(min(_LAST_REQUEST_S, self._grace_s), until=lambda: not self.server_state.connections)
        await self._turns(self._grace_s - _LAST_REQUEST_S, until=self._all_answered)
        if left := len(self.server_state.connections):
            _logger.warning("%d connections were closed before they were answered: drain_s has passed", left)
            for connection in list(self.server_state.connections):
                connection.transport.abort()
        for task in list(self.server_state.tasks):
            task.cancel()
        await self.lifespan.shutdown()

    async def _turns(self, time_s: float, *, until: Callable[[], bool]) -> None:
        """Let some time pass, or less; every answer given in it is the last one on its connection."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + time_s
        while loop.time() < end_s and not self.force_exit and not until():
            for connection in list(self.server_state.connections):
                connection.shutdown()
            self._check_clients()
            await asyncio.sleep(_TURN_S)

    def _all_answered(self) -> bool:
        """Whether no one is left; closes those who want nothing more."""
        for connection in self._connections():
            if connection.is_idle:
                connection.transport.close()
        return not self.server_state.connections

    async def _stop_accepting(self, sockets: Sequence[socket.socket]) -> None:
        """Take in those whom the system has accepted already: closing the socket would reset them."""
        copies = [own.dup() for own in sockets]
        for acceptor in self._acceptors:
            acceptor.close()
        for own in sockets:
            own.close()
        for acceptor, copy in zip(self._acceptors, copies, strict=True):
            with copy:
                copy.setblocking(False)
                with suppress(OSError):
                    while True:
                        acceptor.take(copy.accept()[0])
        for acceptor in self._acceptors:
            await acceptor.arrived(min(_LAST_REQUEST_S, self._grace_s))

    def _new_connection(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(
            config=self.config,  # type: ignore[call-arg]
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        return protocol

    def _check_clients(self) -> None:
        now_s = asyncio.get_running_loop().time()
        for connection in self._connections():
            connection.enforce(now_s)

    def _connections(self) -> list[Connection]:
        return [connection for connection in self.server_state.connections if isinstance(connection, Connection)]

"""Load: requests of one process to a server, by a schedule or one after the other."""

import asyncio
import resource
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from serving.bench.answer_reader import RawAnswer
from serving.bench.connection import BenchConnection
from serving.bench.tally import Tally

MAX_IN_FLIGHT = 4096
"""Connections of all processes together at most."""
_SPARE_FILES = 100
_PAUSE_S = 0.05
"""Seconds until a connection that sends one request after the other goes on after one that was not ranked."""
_SWEEPS_PER_TIMEOUT = 20


@dataclass(frozen=True)
class Target:
    """Where requests go."""

    host: str
    port: int
    is_encrypted: bool
    timeout_s: float
    """Seconds from when a request was due until it is given up."""


@dataclass(frozen=True)
class OpenLoad:
    """Requests that leave at a steady rate, whatever becomes of those before them."""

    rate: float
    """Requests per second of all processes together."""
    duration_s: float
    start_s: float
    """When the first one is due, on the monotonic clock, which all processes share."""
    worker: int = 0
    num_workers: int = 1
    num_connections: int = 1
    """Opened before the start, in each process; more are opened as they are needed."""

    @property
    def num_requests(self) -> int:
        """Of all processes together."""
        return max(1, round(self.rate * self.duration_s))


@dataclass(frozen=True)
class ClosedLoad:
    """Connections that each send a request as soon as they have the answer to the one before."""

    num_connections: int
    """Of this process."""
    duration_s: float
    start_s: float
    worker: int = 0
    num_workers: int = 1


@dataclass(slots=True)
class _Flight:
    """A request that is due or under way."""

    payload: int
    due_s: float


class Load:
    """Sends requests and tallies what becomes of them. One load at a time.

    Args:
        requests: whole HTTP requests, sent in turn.
        max_connections: of this process.
    """

    def __init__(self, target: Target, requests: Sequence[bytes], *, max_connections: int = MAX_IN_FLIGHT) -> None:
        assert requests
        self._target, self._requests = target, requests
        self._max_connections = min(max_connections, _allowed_files() - _SPARE_FILES)
        self._tls = ssl.create_default_context() if target.is_encrypted else None

    async def run(self, load: OpenLoad | ClosedLoad) -> Tally:
        """All requests of a load, to the last answer or the end of its time."""
        self._tally = Tally()
        self._idle: list[BenchConnection] = []
        self._flights: dict[BenchConnection, _Flight] = {}
        self._waiting: deque[_Flight] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._num_paused = 0
        self._end_s = 0.0
        self._next_payload = load.worker
        self._payload_step = load.num_workers
        for _ in range(min(load.num_connections, self._max_connections)):
            self._open()
        await asyncio.gather(*self._opening)
        sweeper = asyncio.ensure_future(self._sweep())
        try:
            if isinstance(load, OpenLoad):
                await self._send_by_schedule(load)
            else:
                await self._send_in_turn(load)
            while self._flights or self._waiting or self._opening or self._num_paused:
                await asyncio.sleep(0.005)
        finally:
            sweeper.cancel()
            for connection in [*self._idle, *self._flights]:
                connection.close()
        return self._tally

    async def _send_by_schedule(self, load: OpenLoad) -> None:
        for number in range(load.worker, load.num_requests, load.num_workers):
            due_s = load.start_s + number / load.rate
            # Even a generator that is late must see what has come in.
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            self._tally.lag_s.append(max(0.0, time.monotonic() - due_s))
            self._start(_Flight(self._take_payload(), due_s))

    async def _send_in_turn(self, load: ClosedLoad) -> None:
        await asyncio.sleep(max(0.0, load.start_s - time.monotonic()))
        self._end_s = load.start_s + load.duration_s
        prepared, self._idle = self._idle, []
        for connection in prepared:
            self._go_on(connection)
        for _ in range(min(load.num_connections, self._max_connections) - len(self._flights)):
            self._open()
        await asyncio.sleep(max(0.0, self._end_s - time.monotonic()))

    def _take_payload(self) -> int:
        payload = self._next_payload % len(self._requests)
        self._next_payload += self._payload_step
        return payload

    def _start(self, flight: _Flight) -> None:
        """Send a request, on a connection that is there, on a new one, or when one becomes free."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                self._send(connection, flight)
                return
        self._waiting.append(flight)
        if len(self._flights) + len(self._opening) < self._max_connections:
            self._open()
        else:
            self._tally.num_held += 1

    def _send(self, connection: BenchConnection, flight: _Flight) -> None:
        self._flights[connection] = flight
        connection.send(self._requests[flight.payload])

    def _go_on(self, connection: BenchConnection) -> None:
        """Give a free connection its next request, if there is one."""
        if not connection.is_open:
            return
        if self._waiting:
            self._send(connection, self._waiting.popleft())
        elif time.monotonic() < self._end_s:
            self._send(connection, _Flight(self._take_payload(), time.monotonic()))
        else:
            self._idle.append(connection)

    def _open(self) -> None:
        task = asyncio.ensure_future(self._connect())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect(self) -> None:
        target = self._target
        try:
            async with asyncio.timeout(target.timeout_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: BenchConnection(self._answered, self._lost), target.host, target.port, ssl=self._tls
                )
        except OSError as error:
            if self._waiting:
                self._waiting.popleft()
                self._count_other("timeout" if isinstance(error, TimeoutError) else "no connection")
            elif time.monotonic() < self._end_s:
                self._count_other("no connection")
                self._pause(self._replace)
            return
        self._go_on(connection)

    def _answered(self, connection: BenchConnection, answer: RawAnswer) -> None:
        flight = self._flights.pop(connection, None)
        if flight is None:
            connection.close()
            return
        self._tally.last_s = time.monotonic()
        took_s = self._tally.last_s - flight.due_s
        if answer.status == HTTPStatus.OK:
            self._tally.ok_s.append(took_s)
            self._tally.bodies[flight.payload] = answer.body
        elif answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            self._tally.refused_s.append(took_s)
        else:
            self._tally.other[str(answer.status)] += 1
        if self._end_s and answer.status != HTTPStatus.OK:
            self._pause(lambda: self._go_on(connection))
        else:
            self._go_on(connection)

    def _lost(self, connection: BenchConnection, reason: str) -> None:
        if self._flights.pop(connection, None) is not None:
            self._count_other(reason)
            # A server that hangs up may do so for ever.
            self._pause(self._replace)
            return
        if connection in self._idle:
            self._idle.remove(connection)
        self._replace()

    def _replace(self) -> None:
        """Open a connection in place of one that was to send again."""
        if self._waiting or time.monotonic() < self._end_s:
            self._open()

    def _count_other(self, reason: str) -> None:
        self._tally.last_s = time.monotonic()
        self._tally.other[reason] += 1

    def _pause(self, then: Callable[[], None]) -> None:
        def after() -> None:
            self._num_paused -= 1
            then()

        self._num_paused += 1
        asyncio.get_running_loop().call_later(_PAUSE_S, after)

    async def _sweep(self) -> None:
        """Give up what has waited too long; those that are under way are nearly in the order in which they were due."""
        while True:
            await asyncio.sleep(self._target.timeout_s / _SWEEPS_PER_TIMEOUT)
            oldest_s = time.monotonic() - self._target.timeout_s
            for connection, flight in list(self._flights.items()):
                if flight.due_s < oldest_s:
                    connection.close("timeout")
            while self._waiting and self._waiting[0].due_s < oldest_s:
                self._waiting.popleft()
                self._count_other("timeout")


def _allowed_files() -> int:
    """Files that this process may open, after asking for as many as it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_IN_FLIGHT + _SPARE_FILES
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft

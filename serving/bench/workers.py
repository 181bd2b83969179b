"""Workers: processes that put one load on a server together."""

import asyncio
import gc
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from recmoe.errors import ServingError
from serving.bench.clock import precise_loop
from serving.bench.load import MAX_IN_FLIGHT, ClosedLoad, Load, OpenLoad, Target
from serving.bench.tally import Tally

_LEAD_S = 0.3
"""Seconds from when a load is told until it begins: every process has opened its connections by then."""
_HEALTH_RATE = 10.0


@dataclass(frozen=True)
class Outcome:
    """What became of a load."""

    tally: Tally
    health: Tally
    """Of the requests for the server's health beside it."""
    elapsed_s: float
    """From when the first request was due until the last one was due, or had its answer, whichever came later."""


class Workers:
    """Processes of the generator, and this one, which watches the server's health beside them.

    Args:
        requests: whole HTTP requests that the processes send in turn.
        health: a whole HTTP request for the server's health.
    """

    def __init__(self, target: Target, requests: Sequence[bytes], *, health: bytes, num_workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._health = Load(target, [health], max_connections=MAX_IN_FLIGHT)
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(num_workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, target, list(requests), num_workers), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            self._receive(pipe)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.close()
            process.terminate()
            process.join()

    def closed(self, num_connections: int, duration_s: float, *, tick: Callable[[float], None]) -> Outcome:
        """As many requests as some connections bring through, one after the other on each.

        Args:
            tick: called often with the seconds that have passed.
        """
        start_s = time.monotonic() + _LEAD_S
        share, rest = divmod(num_connections, len(self._pipes))
        loads = [
            ClosedLoad(share + (place < rest), duration_s, start_s, place, len(self._pipes))
            for place in range(len(self._pipes))
        ]
        return self._run(loads, duration_s, start_s, tick)

    def open(self, rate: float, duration_s: float, num_connections: int, *, tick: Callable[[float], None]) -> Outcome:
        """Requests at a steady rate; see ``closed``."""
        start_s = time.monotonic() + _LEAD_S
        each = -(-num_connections // len(self._pipes))
        whole = OpenLoad(rate, duration_s, start_s, num_workers=len(self._pipes), num_connections=each)
        loads = [replace(whole, worker=place) for place in range(len(self._pipes))]
        return self._run(loads, duration_s, start_s, tick)

    def _run(
        self, loads: Sequence[OpenLoad | ClosedLoad], duration_s: float, start_s: float, tick: Callable[[float], None]
    ) -> Outcome:
        with _deaths_told():
            for pipe, load in zip(self._pipes, loads, strict=True):
                pipe.send(load)
        with asyncio.Runner(loop_factory=precise_loop) as runner:
            tallies, health = runner.run(self._watch(OpenLoad(_HEALTH_RATE, duration_s, start_s), tick))
        tally = Tally.total(tallies)
        return Outcome(tally, health, max(duration_s, tally.last_s - start_s))

    async def _watch(self, load: OpenLoad, tick: Callable[[float], None]) -> tuple[list[Tally], Tally]:
        health = asyncio.ensure_future(self._health.run(load))
        while not all(pipe.poll() for pipe in self._pipes):
            tick(time.monotonic() - load.start_s)
            await asyncio.sleep(0.1)
        return [self._receive(pipe) for pipe in self._pipes], await health

    def _receive(self, pipe: Connection) -> Tally:
        with _deaths_told():
            tally: Tally = pipe.recv()
            return tally


@contextmanager
def _deaths_told() -> Iterator[None]:
    """ServingError where the process at the other end of a pipe is gone."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise ServingError("a process of the load generator was killed; was there too little memory?") from error


def _work(pipe: Connection, target: Target, requests: list[bytes], num_workers: int) -> None:
    """What a process does: one load after the other, until it is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    load = Load(target, requests, max_connections=MAX_IN_FLIGHT // num_workers)
    # A collection in the middle of a load would hold up what is due.
    gc.freeze()
    gc.disable()
    pipe.send(Tally())
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        while True:
            try:
                asked: OpenLoad | ClosedLoad = pipe.recv()
            except EOFError:
                return
            pipe.send(runner.run(load.run(asked)))
            gc.collect()

"""RankingPool: a few threads that rank, and the bounded queue before them.

A request waits in the queue, not in a thread: ranking is arithmetic, and more threads than cores only make each of
them late. What cannot be answered within its deadline is refused before it costs anything, or done with less work.
"""

import asyncio
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import torch

from serving.job import Deadline, Job, Lighter
from serving.service_times import ServiceTimes

T = TypeVar("T")

_SLOWDOWN = 1.25
"""By which all that waits may become slower, as on a machine that others use too, without an answer that is late."""

_AGAIN_S = 10.0
"""Seconds without full work after which a thread that nothing waits for does some, to know how long it takes."""


class OverloadError(Exception):
    """A request that is refused at once; ``reason`` as the metrics count it, ``retry_after_s`` whole seconds."""

    def __init__(self, reason: str, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.reason, self.retry_after_s = reason, retry_after_s


class RankingPool:
    """Runs work on its own threads, in the order of arrival.

    Args:
        num_threads: how many run at once.
        shares_cores: whether torch computes with one thread in each of them: more would fight with those of the others.
        max_waiting: work that may wait.
        on_length: is called with how much waits, each time that changes.
        again_s: seconds between two times that full work is done again where only lighter work is done.
    """

    def __init__(
        self,
        *,
        num_threads: int,
        shares_cores: bool,
        max_waiting: int,
        on_length: Callable[[int], None],
        again_s: float = _AGAIN_S,
    ) -> None:
        self._num_threads = num_threads
        # A thread that computes for the first time would take what another one has set for itself.
        self._torch_threads = 1 if shares_cores else torch.get_num_threads()
        self._max_waiting, self._on_length, self._again_s = max_waiting, on_length, again_s
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._busy = Counter[str]()
        self._is_closed = False
        self._times = ServiceTimes()

    async def run(
        self, work: Callable[[float], T], deadline: Deadline, *, kind: str = "rank", lighter: Lighter | None = None
    ) -> T:
        """What ``work`` makes; it is called with the time since when it has waited, by ``time.perf_counter``.

        Work whose caller goes away before its turn is dropped.

        Args:
            kind: of work that takes about as long: what of one kind has taken says nothing of another.
            lighter: is done instead where the work would be late, as it comes or when its turn has come.

        Raises:
            OverloadError: the queue is full, or the deadline will pass before the work, or the lighter one, is done.
            LateError: the deadline passed in the queue.
        """
        loop = asyncio.get_running_loop()
        job = Job(work, kind, deadline, loop, loop.create_future(), lighter)
        with self._changed:
            self._admit(job)
            self._start()
            self._waiting.append(job)
            self._on_length(len(self._waiting))
            self._changed.notify()
        try:
            result: T = await job.future
        except asyncio.CancelledError:
            self._drop(job)
            raise
        return result

    def expected_s(self, kind: str) -> float:
        """Seconds that work of a kind takes; 0 while nothing is known of it."""
        with self._changed:
            return self._times.expected_s(kind)

    def guess(self, kind: str, time_s: float) -> None:
        """Expect this of a kind of work until some has been done."""
        with self._changed:
            self._times.guess(kind, time_s)

    def close(self) -> None:
        """Let the threads end once nothing waits."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _admit(self, job: Job) -> None:
        """OverloadError where the work has no chance; with a thread to spare it has, however slow others were."""
        # Of those in the queue, some are about to be taken out by threads that are free.
        num_ahead = self._busy.total() + len(self._waiting)
        num_waiting = num_ahead - self._num_threads
        if num_waiting < 0:
            return
        turn_s = self._turn_s(Counter(one.done_as for one in self._waiting))
        retry_after_s = max(1, math.ceil(turn_s * num_waiting / (num_waiting + 1)))
        if num_waiting >= self._max_waiting:
            raise OverloadError(
                "queue_full", f"{num_waiting} requests wait already; try again later", retry_after_s=retry_after_s
            )
        deadline = job.deadline
        self._settle(job, turn_s)
        if not self._is_in_time(job, turn_s) and not self._makes_room(job):
            expected_s = turn_s + self._times.slow_s(job.done_as)
            raise OverloadError(
                "no_time",
                f"an answer would take about {expected_s * 1000:.0f} ms, and {max(0, deadline.left_s) * 1000:.0f} ms "
                f"are left of the deadline of {deadline.allowed_ms:g} ms (X-Deadline-Ms); try again later",
                retry_after_s=retry_after_s,
            )

    def _turn_s(self, waiting: Counter[str]) -> float:
        """Seconds until it is the turn of what comes behind work of these kinds, if that is slow: so it is together."""
        kinds_ahead = self._busy + waiting
        num_ahead = kinds_ahead.total()
        mean_s = sum(num * self._times.slow_s(kind) for kind, num in kinds_ahead.items()) / num_ahead
        return mean_s * (num_ahead - self._num_threads + 1) / self._num_threads

    def _is_in_time(self, job: Job, turn_s: float) -> bool:
        """Whether a job is done in time, in most cases, whose turn comes in so many seconds.

        Time for slow work must be left: while there is too much to do, every job is let in with as little time as that.
        """
        return _SLOWDOWN * turn_s + self._times.slow_s(job.done_as) <= job.deadline.left_s

    def _settle(self, job: Job, turn_s: float) -> None:
        """Choose the lighter work of a job where the full work may be late."""
        if not self._is_in_time(job, turn_s):
            self._lighten(job)

    def _makes_room(self, job: Job) -> bool:
        """Whether a job is done in time once those ahead of it are done lighter, which they are then."""
        if job.lighter is None or not self._is_in_time(job, self._turn_s(Counter(map(self._quickest, self._waiting)))):
            return False
        for one in self._waiting:
            self._lighten(one)
        return True

    def _lighten(self, job: Job) -> None:
        job.is_light = job.is_light or self._quickest(job) != job.kind

    def _quickest(self, job: Job) -> str:
        """The kind of a job or of its lighter work, whichever takes less time."""
        return min(job.kind, job.lightest, key=self._times.expected_s)

    def _start(self) -> None:
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._work, name=f"ranking-{number}", daemon=True)
                for number in range(self._num_threads)
            ]
            for thread in self._threads:
                thread.start()

    def _drop(self, job: Job) -> None:
        with self._changed, suppress(ValueError):
            self._waiting.remove(job)
            self._on_length(len(self._waiting))

    def _work(self) -> None:
        """One thread: job after job until the pool is closed."""
        torch.set_num_threads(self._torch_threads)
        while (job := self._next()) is not None:
            self._do(job)
            # A job holds a request of megabytes; the next may be long in coming.
            del job

    def _next(self) -> Job | None:
        with self._changed:
            while not self._waiting:
                if self._is_closed:
                    return None
                self._changed.wait()
            job = self._waiting.popleft()
            self._settle(job, 0.0)
            self._busy[job.done_as] += 1
            # With others behind it, work that would end too late is a waste of their time.
            job.needed_s = self._times.expected_s(job.done_as) if self._waiting else 0.0
            self._on_length(len(self._waiting))
            return job

    def _do(self, job: Job) -> None:
        start_s = time.perf_counter()
        result, error = None, None
        try:
            job.deadline.check("waited for its turn, which came", needed_s=job.needed_s)
            result = job.do()
        except BaseException as raised:  # Whatever it is, the one who waits must hear of it.
            error = raised
        with self._changed:
            self._busy[job.done_as] -= 1
            if error is None:
                self._times.measured(job.done_as, time.perf_counter() - start_s)
        job.finish(result, error)
        if job.is_light and error is None:
            self._do_again(job)

    def _do_again(self, job: Job) -> None:
        """Do the full work of a job that is done, where that has not been done for long and nothing waits."""
        assert job.lighter is not None
        with self._changed:
            if self._waiting or not self._times.begins_anew(job.kind, after_s=self._again_s):
                return
            self._busy[job.kind] += 1
        start_s = time.perf_counter()
        took_s = None
        # Its request was answered; what the full work makes of it concerns no one.
        with suppress(Exception):
            job.context.run(job.lighter.again)
            took_s = time.perf_counter() - start_s
        with self._changed:
            self._busy[job.kind] -= 1
            if took_s is not None:
                self._times.measured(job.kind, took_s, anew=True)

"""Progress: trainings one after the other or side by side, with what is left, until the time is up."""

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, as_completed
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.comparison.trainings import Failure, Job, Result, stored, train


@dataclass
class Progress:
    """Does trainings, says how far it is, and stops in time."""

    to: Path
    num_left: int
    """Trainings, those that are stored included."""
    num_processes: int = 1
    stop_at_s: float = float("inf")
    pool: Executor | None = None
    is_stopped: bool = False
    num_failed: int = 0
    _seconds: list[float] = field(default_factory=list)

    @property
    def may_train(self) -> bool:
        """Whether another training may begin."""
        return not self.is_stopped and time.monotonic() < self.stop_at_s

    def results(self, jobs: Sequence[Job]) -> Iterator[Result | Failure]:
        """Each training's result as it comes, stored ones at once; fewer after a stop."""
        new = []
        for job in jobs:
            found = stored(job, self.to)
            if found is None:
                new.append(job)
            else:
                self.num_left -= 1
                yield found
        with closing(self._trained(new)) as trained:
            for job, result in trained:
                if result is None:
                    self.is_stopped = True
                    continue
                self.num_left -= 1
                self.num_failed += isinstance(result, Failure)
                self._say(job, result)
                yield result

    def _trained(self, jobs: Sequence[Job]) -> Generator[tuple[Job, Result | Failure | None]]:
        """None for a training that was stopped, or not begun."""
        if self.pool is None:
            for job in jobs:
                yield job, train(job, self.to) if self.may_train else None
            return
        futures = {self.pool.submit(_in_time, job, self.to, self.stop_at_s): job for job in jobs if self.may_train}
        self.is_stopped |= len(futures) < len(jobs)
        try:
            for future in as_completed(futures):
                if not future.cancelled():
                    yield futures[future], future.result()
                if self.is_stopped:
                    _cancel(futures)
        finally:
            _cancel(futures)

    def _say(self, job: Job, result: Result | Failure) -> None:
        what = f"{job.log} {job.variant}, seed {job.config.seed}, trial {job.trial + 1}"
        if isinstance(result, Failure):
            print(f"{what}: {result.reason}", flush=True)
            return
        self._seconds.append(result.seconds)
        left_s = self.num_left * sum(self._seconds) / len(self._seconds) / self.num_processes
        print(
            f"{what}: score {result.score:.4f}, {result.seconds:.0f} s; {self.num_left} trainings left, "
            f"about {left_s / 60:.0f} min",
            flush=True,
        )


def _cancel(futures: Iterable[Future[Any]]) -> None:
    """Those that have not begun."""
    for future in futures:
        future.cancel()


def _in_time(job: Job, to: Path, stop_at_s: float) -> Result | Failure | None:
    """Of a process of the pool; the clock is the machine's, one for all processes."""
    return train(job, to) if time.monotonic() < stop_at_s else None

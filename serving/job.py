"""Job: a piece of work with a deadline, and what may be done in its place."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any


class LateError(Exception):
    """A request whose deadline has passed."""


@dataclass(frozen=True)
class Deadline:
    """When a request must be answered, by ``time.perf_counter``."""

    arrived_s: float
    allowed_ms: float

    @property
    def left_s(self) -> float:
        return self.arrived_s + self.allowed_ms / 1000 - time.perf_counter()

    def check(self, what: str, *, needed_s: float = 0.0) -> None:
        """LateError if less time is left than is needed."""
        if self.left_s <= needed_s:
            took_ms = (time.perf_counter() - self.arrived_s) * 1000
            raise LateError(f"{what} after {took_ms:.0f} ms, the deadline was {self.allowed_ms:g} ms (X-Deadline-Ms)")


@dataclass(frozen=True)
class Lighter:
    """What is done in place of work that would be late."""

    work: Callable[[float], Any]
    kind: str
    again: Callable[[], object]
    """Does the full work, of which nothing is used but the time that it takes. While only lighter work is done, no
    other way would show that there is time for the full work again."""


@dataclass(eq=False)
class Job:
    """One piece of work in the queue."""

    work: Callable[[float], Any]
    kind: str
    deadline: Deadline
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    lighter: Lighter | None = None
    is_light: bool = False
    """Whether the lighter work is done. That is not taken back: what was let in behind it relies on it."""
    context: Context = field(default_factory=copy_context)
    """Of the request: what is logged in the thread belongs to it too."""
    queued_s: float = field(default_factory=time.perf_counter)
    needed_s: float = 0.0
    """What must be left of the deadline for the work to be begun."""

    @property
    def lightest(self) -> str:
        """The kind of the least that can be done."""
        return self.kind if self.lighter is None else self.lighter.kind

    @property
    def done_as(self) -> str:
        """The kind of what is done."""
        return self.lightest if self.is_light else self.kind

    def do(self) -> Any:
        """The work or the lighter work, in the context of the request."""
        work = self.lighter.work if self.is_light and self.lighter is not None else self.work
        return self.context.run(work, self.queued_s)

    def finish(self, result: Any, error: BaseException | None) -> None:
        """Hand over the outcome, unless its caller has gone."""

        def set_outcome() -> None:
            if self.future.done():
                return
            if error is None:
                self.future.set_result(result)
            else:
                self.future.set_exception(error)

        # The loop is closed where the server did not wait for its last requests.
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(set_outcome)

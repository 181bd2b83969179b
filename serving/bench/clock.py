"""precise_loop: an event loop that wakes when it is time, to some ten microseconds."""

import asyncio
import select
import selectors


def precise_loop() -> asyncio.AbstractEventLoop:
    """A new event loop whose timers do not wait for the next whole millisecond, as those over epoll do.

    A request that leaves half a millisecond late would be counted as one that took that much longer.
    """
    if not hasattr(selectors, "EpollSelector"):
        return asyncio.SelectorEventLoop()
    return asyncio.SelectorEventLoop(_PreciseSelector())


class _PreciseSelector(selectors.EpollSelector):
    """Waits for epoll's own descriptor by ``select``, which takes microseconds."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)

"""mapped_in_order(): items worked on by several threads, handed out in their order."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def mapped_in_order(items: Iterator[T], work: Callable[[T], R], *, num_threads: int) -> Generator[tuple[T, R]]:
    """Each item with what ``work`` makes of it; at most ``num_threads`` items are worked on or wait.

    An error of ``items`` or ``work`` is raised in its place, after what comes before it. When the
    consumer stops early, what has begun is waited for and the rest is dropped.
    """
    assert num_threads > 0
    if num_threads == 1:
        for item in items:
            yield item, work(item)
        return
    waiting: deque[tuple[T, Future[R]]] = deque()
    with ThreadPoolExecutor(num_threads, thread_name_prefix="encode") as executor:
        try:
            error = None
            while error is None:
                try:
                    item = next(items)
                except Exception as caught:
                    error = caught
                else:
                    waiting.append((item, executor.submit(work, item)))
                while waiting and (len(waiting) == num_threads or error is not None):
                    done, future = waiting.popleft()
                    yield done, future.result()
            if not isinstance(error, StopIteration):
                raise error
        finally:
            for _, future in waiting:
                future.cancel()

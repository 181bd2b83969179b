"""Prefetch: the items of an iterator, made ahead on a background thread."""

import queue
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _Failed:
    error: BaseException


class _End:
    """After the last item."""


class Prefetch(Generic[T]):
    """Runs an iterator on a thread of its own, at most ``num_items`` ahead of the consumer.

    An error of the iterator is raised in the consumer, after the items made before it. When the
    consumer stops early, the thread stops and the iterator is closed.

    Args:
        source: the iterator; run and closed on the thread.
        num_items: items that may wait.
        on_wait: told the seconds that the consumer waited, item by item.
    """

    def __init__(self, source: Generator[T], *, num_items: int, on_wait: Callable[[float], None]) -> None:
        assert num_items > 0
        self._source = source
        self._num_items = num_items
        self._on_wait = on_wait

    def items(self) -> Generator[T]:
        """The items; the thread runs from the first one asked for until the last, or until this is closed."""
        items: queue.Queue[T | _Failed | _End] = queue.Queue(maxsize=self._num_items)
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(items, stop), name="prefetch", daemon=True)
        thread.start()
        try:
            while True:
                started = time.perf_counter()
                item = items.get()
                self._on_wait(time.perf_counter() - started)
                if isinstance(item, _End):
                    return
                if isinstance(item, _Failed):
                    raise item.error
                yield item
        finally:
            stop.set()
            _drain(items, thread)

    def _run(self, items: "queue.Queue[T | _Failed | _End]", stop: threading.Event) -> None:
        try:
            for item in self._source:
                items.put(item)
                if stop.is_set():
                    return
            items.put(_End())
        except BaseException as error:
            items.put(_Failed(error))
        finally:
            self._source.close()


def _drain(items: "queue.Queue[T | _Failed | _End]", thread: threading.Thread) -> None:
    # The thread may be waiting for room: make room until it has seen that it is to stop.
    while thread.is_alive():
        try:
            items.get(timeout=0.01)
        except queue.Empty:
            continue
    thread.join()

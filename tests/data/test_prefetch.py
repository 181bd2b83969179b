"""Tests of Prefetch."""

import threading
import time
from collections.abc import Generator

import pytest

from recmoe.data.prefetch import Prefetch


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_items_come_in_order_and_the_wait_is_told() -> None:
    waits: list[float] = []

    def slow() -> Generator[int]:
        for item in range(3):
            time.sleep(0.02)
            yield item

    items = list(Prefetch(slow(), num_items=1, on_wait=waits.append).items())

    assert items == [0, 1, 2]
    assert sum(waits) > 0.05
    assert _threads() == []


def test_iterator_runs_ahead_of_the_consumer_by_a_bounded_number() -> None:
    made: list[int] = []

    def endless() -> Generator[int]:
        while True:
            made.append(len(made))
            yield made[-1]

    items = Prefetch(endless(), num_items=2, on_wait=lambda _: None).items()
    next(items)
    time.sleep(0.1)

    # One is with the consumer, two wait, and one is made but finds no room.
    assert made == [0, 1, 2, 3]
    items.close()


def test_thread_stops_and_the_iterator_is_closed_when_the_consumer_stops_early() -> None:
    closed: list[bool] = []

    def endless() -> Generator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.append(True)

    for _ in Prefetch(endless(), num_items=2, on_wait=lambda _: None).items():
        break

    assert _threads() == []
    assert closed == [True]


def test_error_is_raised_in_the_consumer_after_the_items_before_it() -> None:
    def failing() -> Generator[int]:
        yield 0
        raise RuntimeError("second item")

    items = Prefetch(failing(), num_items=5, on_wait=lambda _: None).items()

    assert next(items) == 0
    with pytest.raises(RuntimeError, match="second item"):
        next(items)
    assert _threads() == []

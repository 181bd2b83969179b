"""Tests of mapped_in_order."""

import threading
import time
from collections.abc import Generator

import pytest

from recmoe.data.in_order import mapped_in_order


def _num_threads() -> int:
    return sum(thread.name.startswith("encode") for thread in threading.enumerate())


def _slow_first(item: int) -> int:
    """The square; the first items take longest."""
    if item < 0:
        raise ValueError(f"{item} is negative")
    time.sleep(0.02 if item < 2 else 0.0)
    return item * item


def _numbers(*items: int) -> Generator[int]:
    """The numbers, and then a failure where one is 99."""
    for item in items:
        if item == 99:
            raise OSError("no more numbers")
        yield item


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(num_threads: int) -> None:
    pairs = list(mapped_in_order(_numbers(*range(9)), _slow_first, num_threads=num_threads))

    assert pairs == [(item, item * item) for item in range(9)]
    assert _num_threads() == 0


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize(
    ("items", "error", "told"),
    [([0, 1, 2, -3, 4, 99], ValueError, "-3 is negative"), ([0, 1, 2, 99, 4], OSError, "no more numbers")],
)
def test_error_is_raised_after_what_comes_before_it(
    items: list[int], error: type[Exception], told: str, num_threads: int
) -> None:
    seen: list[tuple[int, int]] = []

    with pytest.raises(error, match=told):
        seen.extend(mapped_in_order(_numbers(*items), _slow_first, num_threads=num_threads))

    assert seen == [(0, 0), (1, 1), (2, 4)]
    assert _num_threads() == 0


def test_no_more_items_are_taken_than_there_are_threads() -> None:
    taken: list[int] = []

    def endless() -> Generator[int]:
        while True:
            taken.append(len(taken))
            yield taken[-1]

    squares = mapped_in_order(endless(), _slow_first, num_threads=3)
    next(squares)
    squares.close()

    assert taken == [0, 1, 2]
    assert _num_threads() == 0

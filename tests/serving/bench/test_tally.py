from array import array
from collections import Counter

import pytest

from serving.bench.tally import Tally, Times


def test_processes_add_up() -> None:
    one = Tally(array("d", [1.0]), array("d", [2.0]), Counter({"500": 1}), array("d", [0.1]), 1, 5.0, {0: b"a"})
    other = Tally(array("d", [3.0]), array("d"), Counter({"500": 2, "timeout": 1}), array("d"), 2, 4.0, {1: b"b"})

    total = Tally.total([one, other])

    assert list(total.ok_s) == [1.0, 3.0]
    assert total.other == {"500": 3, "timeout": 1}
    assert (total.num_requests, total.num_held, total.last_s) == (7, 3, 5.0)
    assert total.bodies == {0: b"a", 1: b"b"}


def test_percentiles_are_in_milliseconds() -> None:
    times = Times.of([number / 1000 for number in range(1, 102)])

    assert (times.p50, times.p90, times.p99, times.max) == pytest.approx((51, 91, 100, 101))


def test_no_times_have_no_percentiles() -> None:
    assert Times.of([]) == Times(None, None, None, None)

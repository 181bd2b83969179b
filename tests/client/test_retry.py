import email.utils
import time

import pytest

from recmoe.client.retry import retry_after_s, wait_s


@pytest.mark.parametrize(("header", "asked_s"), [("2", 2.0), (" 0 ", 0.0), (None, 0.0), ("soon", 0.0), ("-1", 0.0)])
def test_retry_after_is_read_as_seconds(header: str | None, asked_s: float) -> None:
    assert retry_after_s(header) == asked_s


def test_retry_after_is_read_as_a_date() -> None:
    assert 8 < retry_after_s(email.utils.formatdate(time.time() + 10, usegmt=True)) <= 10
    assert retry_after_s("Sun, 06 Nov 1994 08:49:37 GMT") == 0.0
    assert retry_after_s("Sun, 06 Nov 1994 08:49:37 -0000") == 0.0


def test_waits_are_never_shorter_than_asked_and_grow_to_a_bound() -> None:
    first = [wait_s(0) for _ in range(200)]
    late = [wait_s(30, retry_after_s=2.0) for _ in range(200)]

    assert 0 <= min(first) < max(first) <= 0.05
    assert len(set(first)) > 100
    assert 2.0 <= min(late) < max(late) <= 3.0

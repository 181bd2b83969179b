"""How long work takes is learned by kind; a guess holds until some is measured."""

import pytest

from serving.service_times import ServiceTimes


def test_mean_and_deviation_follow_what_is_measured() -> None:
    times = ServiceTimes()

    for took_s in (1.0, 2.0):
        times.measured("rank", took_s)
    times.measured("explain", 9.0)

    assert times.expected_s("rank") == pytest.approx(1.1)
    assert times.slow_s("rank") == pytest.approx(1.1 + 2 * 0.1)
    assert (times.expected_s("explain"), times.slow_s("explain")) == (9.0, 9.0)
    assert (times.expected_s("unknown"), times.slow_s("unknown")) == (0.0, 0.0)


def test_guess_holds_until_work_is_measured_and_forgets_what_was() -> None:
    times = ServiceTimes()
    for took_s in (1.0, 2.0):
        times.measured("light", took_s)

    times.guess("light", 5.0)
    guessed = times.expected_s("light"), times.slow_s("light")
    times.measured("light", 0.5)

    assert guessed == (5.0, 5.0)
    assert (times.expected_s("light"), times.slow_s("light")) == (0.5, 0.5)


def test_what_is_measured_anew_replaces_what_is_old() -> None:
    times = ServiceTimes()
    times.measured("rank", 2.0)

    due = [times.begins_anew("rank", after_s=after_s) for after_s in (600.0, 0.0, 600.0)]
    times.measured("rank", 0.5, anew=True)

    assert due == [False, True, False]
    assert not times.begins_anew("unknown", after_s=0.0)
    assert (times.expected_s("rank"), times.slow_s("rank")) == (0.5, 0.5)

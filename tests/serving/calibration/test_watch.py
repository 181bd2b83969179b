"""A mean prediction that leaves its band is warned of once, and said to be back once."""

from typing import Any

import pytest

from serving.calibration.moments import Moments, ServedPredictions
from serving.calibration.watch import CalibrationWatch, TaskCalibration
from serving.settings import ServeSettings


def requests(rate: float, num: int = 50, *, spread: float = 0.1) -> Moments:
    """Requests of 100 candidates, half of them above the rate and half below by a part of it."""
    moments = Moments()
    for number in range(num):
        total = 100 * rate * (1 + (spread if number % 2 else -spread))
        moments = moments.plus(Moments(1, 100, total, 100**2, 100 * total, total**2))
    return moments


class Watched:
    """A watch under a clock that is set by hand, of windows of 60 s with 1,000 candidates at least."""

    def __init__(self, **settings: Any) -> None:
        self.now_s = 1000.0
        given: dict[str, Any] = {"calibration_window_s": 60, "calibration_candidates": 1000, **settings}
        self.watch = CalibrationWatch(ServeSettings(**given), clock=lambda: self.now_s)

    def serve(self, rate: float, *, version: str = "1", after_s: float = 30, **changes: Any) -> TaskCalibration:
        """What is known of ctr some time and fifty requests later."""
        self.now_s += after_s
        self.watch.take(
            ServedPredictions(
                name="shop",
                version=version,
                digest=f"digest {version}",
                training={"ctr": 0.05},
                moments={"ctr": requests(rate, **changes)},
            )
        )
        return self.check()

    def check(self) -> TaskCalibration:
        (found,) = self.watch.check()
        return found


def test_mean_that_leaves_its_band_is_warned_of_once_and_so_is_its_return(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(expected_rates={"ctr": 0.1})

    found = [watched.serve(rate, after_s=100) for rate in (0.1, 0.3, 0.3, 0.15, 0.12, 0.15)]

    # Beyond twice the rate; back at its square root, 1.41.
    assert [one.warning is not None for one in found] == [False, True, True, True, False, False]
    assert [one.served for one in found] == pytest.approx([0.1, 0.3, 0.3, 0.15, 0.12, 0.15])
    assert found[1].warning == (
        "shop version 1: task ctr predicts 0.3 on average, 3.00 times the 0.1 that is expected (given), over 60 s with "
        "5000 candidates in 50 requests; in training it was 0.05"
    )
    assert [message[:40] for message in caplog.messages] == [
        "calibration: shop version 1: task ctr pr",
        "calibration: within its band again, shop",
    ]


@pytest.mark.parametrize(("rate", "is_out"), [(0.04, True), (0.06, False), (0.19, False), (0.21, True), (-0.1, True)])
def test_band_is_a_factor_in_both_directions(rate: float, is_out: bool) -> None:
    watched = Watched(expected_rates={"ctr": 0.1})

    assert (watched.serve(rate, spread=0.01).warning is not None) == is_out


def test_mean_that_may_lie_within_by_chance_is_not_warned_of() -> None:
    certain, uncertain = (Watched(expected_rates={"ctr": 0.1}) for _ in range(2))

    # The error of fifty requests that differ by 90 % is 13 %.
    assert certain.serve(0.25, spread=0.1).warning is not None
    assert uncertain.serve(0.25, spread=0.9).warning is None


@pytest.mark.parametrize(("num", "least"), [(9, 1000), (29, 1), (49, 5000)])
def test_few_requests_or_candidates_say_nothing(num: int, least: int) -> None:
    watched = Watched(expected_rates={"ctr": 0.001}, calibration_candidates=least)

    found = watched.serve(0.5, num=num)

    assert (found.served, found.warning, found.num_candidates) == (None, None, 100 * num)


def test_window_slides() -> None:
    watched = Watched(expected_rates={"ctr": 0.1})

    watched.serve(0.1)
    both = watched.serve(0.2, after_s=50)
    watched.now_s += 20
    later = watched.check()
    watched.now_s += 60
    none = watched.check()

    assert (both.served, both.num_candidates) == (pytest.approx(0.15), 10_000)
    assert (later.served, later.num_candidates) == (pytest.approx(0.2), 5000)
    assert (none.served, none.num_candidates) == (None, 0)


def test_first_six_windows_are_the_baseline_and_the_next_model_is_held_to_it(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()

    # Far from the rate of training, as candidates are no impressions.
    first = [watched.serve(0.01) for _ in range(13)]
    same = watched.serve(0.012)
    other = watched.serve(0.05, version="2")

    assert [one.expected for one in first[:12]] == [None] * 12
    assert first[12].expected == pytest.approx(0.01)
    assert {(one.training, one.source) for one in first} == {(0.05, "baseline")}
    assert same.warning is None
    assert other.served == pytest.approx(0.05)
    assert other.warning is not None
    assert other.warning.startswith("shop version 2: task ctr predicts 0.05 on average, 5.00 times the 0.01 that is")
    assert len(caplog.messages) == 1


def test_baseline_that_is_not_found_yet_begins_anew_with_another_model() -> None:
    watched = Watched()

    for _ in range(12):
        watched.serve(0.01)
    begun = [watched.serve(0.05, version="2") for _ in range(13)]

    assert begun[11].expected is None
    assert begun[12].expected == pytest.approx(0.05)


def test_expectation_is_the_mean_of_training_where_that_is_wanted() -> None:
    found = Watched(expected_rates="training").serve(0.2)

    assert (found.expected, found.source) == (0.05, "training")
    assert found.warning is not None


@pytest.mark.parametrize(("band", "rates"), [(0, "training"), (2, {"cvr": 1.0})])
def test_no_band_or_no_expectation_is_no_warning(band: float, rates: Any) -> None:
    watched = Watched(calibration_band=band, expected_rates=rates)

    found = watched.serve(0.9)

    assert (found.served, found.warning) == (pytest.approx(0.9), None)


def test_nothing_is_known_before_something_was_served() -> None:
    assert Watched().watch.check() == []

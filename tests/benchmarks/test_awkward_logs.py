"""The planted logs: their rates, what is new in their tests, and that the truth behind them is the truth."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.awkward_logs import MAKERS, AwkwardLog, ratings, shop_events, short_video


@pytest.fixture(scope="module")
def video() -> AwkwardLog:
    return short_video(seed=0)


def unseen(log: AwkwardLog, column: str) -> float:
    """Share of the last tenth whose value the first 80 % do not have."""
    ids = log.table[column].to_numpy()
    return float(1 - np.isin(ids[int(0.9 * ids.size) :], ids[: int(0.8 * ids.size)]).mean())


def test_short_videos_have_their_rates_and_four_outcomes_below_one_percent(video: AwkwardLog) -> None:
    rates = {name: video.table[name].to_numpy().mean() for name in video.outcomes if name != "play_time_ms"}

    assert rates == pytest.approx(
        {"click": 0.4, "long_view": 0.25, "like": 0.02, "follow": 0.006, "comment": 0.004, "forward": 0.0015,
         "profile_enter": 0.007}, rel=0.2,
    )  # fmt: skip
    assert sum(rate < 0.01 for rate in rates.values()) == 4


def test_most_videos_of_the_test_are_new_and_its_users_are_not(video: AwkwardLog) -> None:
    assert unseen(video, "video_id") > 0.6
    assert unseen(video, "user_id") < 0.02
    assert np.all(np.diff(video.table["time_ms"].to_numpy() // 1000) >= 0)


def test_shop_events_have_items_that_are_seen_once_or_twice() -> None:
    log = shop_events(seed=0)

    counts = np.unique(log.table["item_id"].to_numpy(), return_counts=True)[1]
    rates = {name: log.table[name].to_numpy().mean() for name in log.outcomes}
    assert np.median(counts) <= 2
    assert rates == pytest.approx({"view_again": 0.13, "cart": 0.09, "favourite": 0.03, "buy": 0.025}, rel=0.15)


def test_ratings_carry_two_thresholds() -> None:
    log = ratings(5000, seed=1)

    rating = log.table["rating"].to_numpy()
    assert set(rating) == {1, 2, 3, 4, 5}
    assert np.array_equal(log.table["like"].to_numpy(), rating >= 4)
    assert np.array_equal(log.table["love"].to_numpy(), rating == 5)


@pytest.mark.parametrize("name", MAKERS)
def test_probabilities_are_as_frequent_as_their_outcomes(name: str) -> None:
    log = MAKERS[name](20_000, seed=2)

    for outcome, truth_N in log.truth.items():
        label_N = log.table[outcome].to_numpy()
        if set(np.unique(label_N)) != {0, 1}:
            continue
        is_likely_N = truth_N > np.quantile(truth_N, 0.8)
        for part_N in (is_likely_N, ~is_likely_N):
            expected = truth_N[part_N].sum()
            # Four standard deviations of a sum of independent draws.
            assert abs(label_N[part_N].sum() - expected) < 4 * np.sqrt(expected) + 1, outcome
        assert 0.6 < log.best_auc(1.0)[outcome] < 0.95


def test_same_seed_gives_the_same_log_and_another_seed_another(tmp_path: Path) -> None:
    once, again, other = shop_events(500, seed=0), shop_events(500, seed=0), shop_events(500, seed=1)

    path = once.write(tmp_path)

    assert once.table == again.table
    assert once.table != other.table
    assert pq.read_table(path) == once.table
    assert json.loads(path.with_suffix(".json").read_text())["best_auc"].keys() == set(once.outcomes)

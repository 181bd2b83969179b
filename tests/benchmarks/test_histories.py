"""The log with planted histories: what its truth depends on, and that every encoder can be measured on it."""

import numpy as np
import pytest

from benchmarks.histories import GAIN, LAST, NUM_CATEGORIES, HistoryLog, main


@pytest.fixture(scope="module")
def log() -> HistoryLog:
    return HistoryLog.draw(20_000, np.random.default_rng(0))


def test_the_truth_hangs_on_the_last_three_items_alone(log: HistoryLog) -> None:
    rows = zip(log.rows["seen"].to_pylist(), log.rows["item"].to_pylist(), log.truth_N, strict=True)

    for seen, item, truth in list(rows)[:500]:
        alike = sum(one % NUM_CATEGORIES == item % NUM_CATEGORIES for one in seen[-LAST:])
        assert np.log(truth / (1 - truth)) == pytest.approx(GAIN * alike - 2.0)


def test_labels_are_drawn_from_the_truth(log: HistoryLog) -> None:
    clicks = log.rows["click"].to_numpy()

    assert clicks.mean() == pytest.approx(log.truth_N.mean(), abs=0.01)
    assert 0.7 < log.auc(log.truth_N) < 0.8


def test_without_their_order_items_tell_less_but_nothing_false(log: HistoryLog) -> None:
    lengths_N = np.array([len(seen) for seen in log.rows["seen"].to_pylist()])

    assert log.auc(log.orderless_N) < log.auc(log.truth_N) - 0.03
    assert np.allclose(log.orderless_N[lengths_N <= LAST], log.truth_N[lengths_N <= LAST])
    for low, high in ((0.0, 0.2), (0.2, 0.4), (0.4, 1.0)):
        is_here_N = (low < log.orderless_N) & (log.orderless_N <= high)
        assert log.truth_N[is_here_N].mean() == pytest.approx(log.orderless_N[is_here_N].mean(), abs=0.02)


@pytest.mark.slow
def test_every_encoder_is_measured_beside_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rows", "1000", "--epochs", "1"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[-7:]] == [
        "none",
        "mean",
        "sum",
        "target_attention",
        "transformer",
        "the truth without order",
        "the truth",
    ]

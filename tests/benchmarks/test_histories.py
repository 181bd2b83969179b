"""The log with planted histories: what its truth depends on, and that every encoder can be measured on it."""

import numpy as np
import pytest

from benchmarks.histories import GAIN, LAST, NUM_GROUPS, HistoryLog, main


@pytest.fixture(scope="module")
def log() -> HistoryLog:
    return HistoryLog.draw(20_000, np.random.default_rng(0))


def test_the_truth_hangs_on_the_last_three_items_alone(log: HistoryLog) -> None:
    rows = zip(log.rows["seen"].to_pylist(), log.rows["item"].to_pylist(), log.truth_N, strict=True)

    for seen, item, truth in list(rows)[:500]:
        alike = sum(one % NUM_GROUPS == item % NUM_GROUPS for one in seen[-LAST:])
        assert np.log(truth / (1 - truth)) == pytest.approx(GAIN * alike - 2.0)


def test_labels_are_drawn_from_the_truth(log: HistoryLog) -> None:
    clicks = log.rows["click"].to_numpy()

    assert clicks.mean() == pytest.approx(log.truth_N.mean(), abs=0.01)
    assert 0.7 < log.best_auc < 0.85


@pytest.mark.slow
def test_every_encoder_is_measured_beside_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rows", "1000", "--epochs", "1"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[-6:]] == [
        "none",
        "mean",
        "sum",
        "target_attention",
        "transformer",
        "the truth",
    ]

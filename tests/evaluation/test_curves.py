import numpy as np
import pytest
from sklearn.metrics import auc, roc_auc_score

from recmoe.evaluation.curves import MAX_POINTS, gain_curve, reliability_bins, roc_curve


def test_roc_curve_does_not_part_ties() -> None:
    curve = roc_curve(np.array([0.9, 0.5, 0.5, 0.1]), np.array([1.0, 1, 0, 0]))

    assert curve.x_P.tolist() == [0, 0, 0.5, 1]
    assert curve.y_P.tolist() == [0, 0.5, 1, 1]


def test_thinned_curve_keeps_its_ends_and_its_area() -> None:
    generator = np.random.default_rng(0)
    scores_N = generator.random(20_000)
    labels_N = (generator.random(20_000) < scores_N**3).astype(np.float64)

    curve = roc_curve(scores_N, labels_N)

    assert len(curve.x_P) <= MAX_POINTS
    assert (curve.x_P[0], curve.y_P[0], curve.x_P[-1], curve.y_P[-1]) == (0, 0, 1, 1)
    assert auc(curve.x_P, curve.y_P) == pytest.approx(roc_auc_score(labels_N, scores_N), abs=1e-3)


def test_gain_curve_counts_what_the_best_rows_hold() -> None:
    curve = gain_curve(np.array([0.9, 0.1, 0.5, 0.4]), np.array([3.0, 0, 1, 0]))

    assert curve.x_P.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curve.y_P.tolist() == [0, 0.75, 1, 1, 1]


def test_reliability_bins_hold_means_and_counts() -> None:
    bins = reliability_bins(np.array([0.1, 0.3, 0.7, 0.9]), np.array([0.0, 0, 1, 0]), num_bins=2)

    assert bins.predicted_U == pytest.approx([0.2, 0.8])
    assert bins.observed_U.tolist() == [0, 0.5]
    assert bins.num_rows_U.tolist() == [2, 2]
    assert (bins.low_U >= 0).all()
    # Wilson's interval of 1 out of 2.
    assert (bins.low_U[1], bins.high_U[1]) == pytest.approx((0.0945, 0.9055), abs=1e-4)


def test_reliability_of_values_has_intervals_of_the_mean() -> None:
    bins = reliability_bins(np.zeros(4), np.array([0.0, 2, 0, 2]), is_binary=False)

    assert bins.observed_U.tolist() == [1]
    assert bins.high_U - bins.low_U == pytest.approx([2 * 1.96 / 2])

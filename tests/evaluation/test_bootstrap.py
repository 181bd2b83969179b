import numpy as np
import pytest

from recmoe.evaluation.bootstrap import draw_counts, intervals
from recmoe.evaluation.metrics.auc import Auc
from recmoe.evaluation.metrics.mae import Mae
from recmoe.features.batch import NO_GROUP


def drawn(num_resamples: int = 50, *, groups: list[int] | None = None, seed: int = 0) -> np.ndarray:
    groups_N = None if groups is None else np.array(groups)
    return np.concatenate(list(draw_counts(num_rows=4, groups_N=groups_N, num_resamples=num_resamples, seed=seed)))


def test_resample_has_as_many_rows_as_the_data() -> None:
    counts_RN = drawn()

    assert counts_RN.shape == (50, 4)
    assert (counts_RN.sum(axis=1) == 4).all()


def test_same_seed_gives_the_same_resamples() -> None:
    np.testing.assert_array_equal(drawn(seed=3), drawn(seed=3))
    assert not np.array_equal(drawn(seed=3), drawn(seed=4))


def test_rows_of_a_group_are_drawn_together() -> None:
    counts_RN = drawn(groups=[9, 2, 9, 2])

    np.testing.assert_array_equal(counts_RN[:, 0], counts_RN[:, 2])
    np.testing.assert_array_equal(counts_RN[:, 1], counts_RN[:, 3])
    assert (counts_RN[:, 0] + counts_RN[:, 1] == 2).all()


def test_rows_without_a_group_are_drawn_one_by_one() -> None:
    counts_RN = drawn(groups=[NO_GROUP, 2, NO_GROUP, 2])

    np.testing.assert_array_equal(counts_RN[:, 1], counts_RN[:, 3])
    assert (counts_RN[:, 0] + counts_RN[:, 1] + counts_RN[:, 2] == 3).all()
    assert (counts_RN[:, 0] != counts_RN[:, 2]).any()
    np.testing.assert_array_equal(drawn(groups=[NO_GROUP] * 4), drawn(groups=[1, 2, 3, 4]))


def test_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    errors_N = np.random.default_rng(0).normal(10.0, 1.0, size=400)
    metric = Mae()
    metric.update(errors_N, np.zeros(400))

    bounds = intervals({"mae": metric}, num_rows=400, groups_N=None, num_resamples=2000, seed=1)["mae"]

    half = 1.96 * errors_N.std() / 20
    assert bounds == pytest.approx((errors_N.mean() - half, errors_N.mean() + half), abs=0.01)


def test_interval_by_groups_is_wider_where_rows_of_a_group_are_alike() -> None:
    errors_N = np.repeat(np.random.default_rng(0).normal(10.0, 1.0, size=100), 4)
    metric = Mae()
    metric.update(errors_N, np.zeros(400))

    widths = []
    for groups_N in (None, np.repeat(np.arange(100), 4)):
        bounds = intervals({"mae": metric}, num_rows=400, groups_N=groups_N, num_resamples=1000, seed=1)["mae"]
        assert bounds is not None
        widths.append(bounds[1] - bounds[0])

    assert widths[1] / widths[0] == pytest.approx(2.0, rel=0.15)


def test_no_interval_where_most_resamples_have_no_value() -> None:
    metric = Auc()
    metric.update(np.array([0.5]), np.array([1.0]))

    assert intervals({"auc": metric}, num_rows=1, groups_N=None, num_resamples=10, seed=0) == {"auc": None}


@pytest.mark.parametrize(("num_rows", "num_resamples"), [(0, 10), (4, 0)])
def test_no_interval_without_rows_or_resamples(num_rows: int, num_resamples: int) -> None:
    assert intervals({"auc": Auc()}, num_rows=num_rows, groups_N=None, num_resamples=num_resamples, seed=0) == {
        "auc": None
    }

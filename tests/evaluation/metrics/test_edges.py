"""Metrics where there is little to measure: one class, one bin, lists without a positive."""

import numpy as np
import pytest

from recmoe.errors import EvaluationError
from recmoe.evaluation.metrics import metric_best
from recmoe.evaluation.metrics.auc import Auc
from recmoe.evaluation.metrics.calibration import Calibration
from recmoe.evaluation.metrics.ece import Ece, equal_mass_starts
from recmoe.evaluation.metrics.gauc import Gauc
from recmoe.evaluation.metrics.metric import Metric
from recmoe.evaluation.metrics.mrr import Mrr
from recmoe.evaluation.metrics.ndcg import Ndcg
from recmoe.evaluation.metrics.normalized_entropy import NormalizedEntropy
from recmoe.evaluation.metrics.recall import Recall
from recmoe.features.batch import NO_GROUP


def reason(metric: Metric, labels: list[float]) -> str | None:
    metric.update(np.linspace(0.1, 0.9, len(labels)), np.array(labels), np.zeros(len(labels), dtype=np.int64))
    result = metric.compute()
    assert np.isnan(result.values_R).all() == (result.reason is not None)
    return result.reason


@pytest.mark.parametrize("metric", [Auc(), NormalizedEntropy()])
def test_one_class_only_is_no_value(metric: Metric) -> None:
    assert reason(metric, [0.0, 0.0]) == "no positive rows"


def test_all_positive_is_no_auc() -> None:
    assert reason(Auc(), [1.0, 1.0]) == "no negative rows"


def test_calibration_needs_labels_that_do_not_cancel() -> None:
    assert reason(Calibration(), [0.0, 0.0]) == "no positive rows"
    assert reason(Calibration(), [-1.0, 1.0]) == "labels sum to zero"
    assert reason(Calibration(), [1.0, 1.0]) is None


@pytest.mark.parametrize("metric", [Ndcg(k=2), Recall(k=2), Mrr()])
def test_lists_without_a_positive_are_no_value(metric: Metric) -> None:
    assert reason(metric, [0.0, 0.0]) == "no group has a positive row"


def test_groups_of_one_class_are_no_gauc() -> None:
    assert reason(Gauc(weight="group"), [1.0, 1.0]) == "no group has both a positive and a negative row"


LISTS = [Gauc(weight="group"), Gauc(weight="impression"), Ndcg(k=2), Recall(k=2), Mrr()]


@pytest.mark.parametrize("metric", LISTS, ids=lambda metric: type(metric).__name__)
def test_rows_without_a_group_are_in_no_list(metric: Metric) -> None:
    scores_N, labels_N = np.array([0.9, 0.8, 0.1, 0.5, 0.4]), np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    alone = type(metric)(**{key: value for key, value in vars(metric).items() if key != "rows"})
    alone.update(scores_N[3:], labels_N[3:], np.array([7, 7]))

    metric.update(scores_N, labels_N, np.array([NO_GROUP, NO_GROUP, NO_GROUP, 7, 7]))

    counts_RN = np.array([[5.0, 0.0, 2.0, 3.0, 3.0]])
    assert metric.compute() == alone.compute()
    assert metric.compute(counts_RN) == alone.compute(counts_RN[:, 3:])
    assert (metric.compute().num_groups_used, metric.compute().num_groups_dropped) == (1, 0)


@pytest.mark.parametrize("metric", [Gauc(weight="group"), Ndcg(k=2)])
def test_rows_without_any_group_are_no_value(metric: Metric) -> None:
    metric.update(np.array([0.1, 0.2]), np.array([0.0, 1.0]), np.array([NO_GROUP, NO_GROUP]))

    assert metric.compute().reason == "no row has a group"


def test_dropped_groups_are_counted() -> None:
    scores_N, groups_N = np.array([0.9, 0.1, 0.5, 0.4, 0.3]), np.array([1, 1, 2, 3, 3])
    metric = Gauc(weight="group")

    metric.update(scores_N, np.array([1.0, 0.0, 1.0, 0.0, 0.0]), groups_N)

    result = metric.compute()
    assert (result.values_R[0], result.num_groups_used, result.num_groups_dropped) == (1.0, 1, 2)


def test_gauc_by_impressions_weighs_groups_by_their_rows() -> None:
    metric = Gauc(weight="impression")

    metric.update(np.array([0.9, 0.1, 0.2, 0.8, 0.9]), np.array([1.0, 0, 1, 0, 0]), np.array([1, 1, 2, 2, 2]))

    assert metric.compute().values_R[0] == pytest.approx(2 / 5)


def test_scoring_everything_alike_is_chance() -> None:
    scores_N, labels_N, groups_N = np.full(4, 0.3), np.array([1.0, 0, 0, 0]), np.zeros(4, dtype=np.int64)
    values = []
    for metric in (Auc(), Gauc(weight="group"), Recall(k=1), Mrr()):
        metric.update(scores_N, labels_N, groups_N)
        values.append(float(metric.compute().values_R[0]))

    assert values == pytest.approx([0.5, 0.5, 0.25, (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4])


def test_resample_without_a_positive_is_nan_and_the_others_are_not() -> None:
    metric = Auc()
    metric.update(np.array([0.9, 0.1]), np.array([1.0, 0.0]))

    values_R = metric.compute(np.array([[0.0, 2.0], [1.0, 1.0]])).values_R

    assert np.isnan(values_R[0])
    assert values_R[1] == 1.0


def test_bins_have_equal_mass_and_do_not_part_ties() -> None:
    run_starts = np.array([0, 1, 5, 6, 7])

    starts = equal_mass_starts(8, run_starts, num_bins=4)

    assert starts.tolist() == [0, 1, 6]


def test_ece_is_calibration_where_all_scores_are_equal() -> None:
    metric = Ece(num_bins=10)

    metric.update(np.full(4, 0.4), np.array([1.0, 0, 0, 0]))

    assert metric.compute().values_R[0] == pytest.approx(0.15)


def test_unknown_metric_lists_what_there_is() -> None:
    with pytest.raises(EvaluationError, match=r"no such metric: ctr\.f1\[all\]; there are auc, logloss"):
        metric_best("ctr.f1[all]")

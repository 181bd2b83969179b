"""Metrics equal those of scikit-learn, with ties, and with labels missing."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics

from recmoe.evaluation.metrics.auc import Auc
from recmoe.evaluation.metrics.gauc import Gauc
from recmoe.evaluation.metrics.logloss import LogLoss
from recmoe.evaluation.metrics.mae import Mae
from recmoe.evaluation.metrics.metric import FloatArray, Metric
from recmoe.evaluation.metrics.mrr import Mrr
from recmoe.evaluation.metrics.ndcg import Ndcg
from recmoe.evaluation.metrics.recall import Recall
from recmoe.evaluation.metrics.rmse import Rmse

Rows = tuple[FloatArray, FloatArray, NDArray[np.int64]]


@pytest.fixture
def rows() -> Rows:
    """500 rows in 60 groups, with many ties."""
    generator = np.random.default_rng(0)
    scores_N = np.round(generator.beta(1, 3, size=500), 2).clip(0.01, 0.99)
    labels_N = (generator.random(500) < scores_N).astype(np.float64)
    return scores_N, labels_N, generator.integers(60, size=500)


def value_of(metric: Metric, rows: Rows) -> float:
    metric.update(*rows)
    return float(metric.compute().values_R[0])


def per_group(rows: Rows) -> list[tuple[FloatArray, FloatArray]]:
    scores_N, labels_N, groups_N = rows
    return [(scores_N[groups_N == group], labels_N[groups_N == group]) for group in np.unique(groups_N)]


def test_auc(rows: Rows) -> None:
    assert value_of(Auc(), rows) == pytest.approx(sklearn_metrics.roc_auc_score(rows[1], rows[0]), abs=1e-12)


def test_auc_of_a_resample(rows: Rows) -> None:
    counts_N = np.random.default_rng(1).integers(4, size=500).astype(np.float64)
    metric = Auc()
    metric.update(*rows)

    values_R = metric.compute(counts_N[None]).values_R

    expected = sklearn_metrics.roc_auc_score(rows[1], rows[0], sample_weight=counts_N)
    assert values_R[0] == pytest.approx(expected, abs=1e-12)


def test_auc_over_batches_of_which_some_are_all_negative(rows: Rows) -> None:
    order = np.argsort(rows[1], kind="stable")
    metric = Auc()

    for part in np.array_split(order, 10):
        metric.update(rows[0][part], rows[1][part])

    assert rows[1][order[:50]].sum() == 0
    expected = sklearn_metrics.roc_auc_score(rows[1], rows[0])
    assert float(metric.compute().values_R[0]) == pytest.approx(expected, abs=1e-12)


def test_logloss(rows: Rows) -> None:
    assert value_of(LogLoss(), rows) == pytest.approx(sklearn_metrics.log_loss(rows[1], rows[0]), abs=1e-12)


def test_logloss_of_rounded_float32_probabilities() -> None:
    scores_N = np.array([1.0, 0.0, 0.5], dtype=np.float32)
    labels_N = np.array([0.0, 1.0, 1.0])

    value = value_of(LogLoss(), (scores_N, labels_N, np.zeros(3, dtype=np.int64)))

    assert value == pytest.approx(sklearn_metrics.log_loss(labels_N, scores_N), rel=1e-6)


def test_rmse_and_mae(rows: Rows) -> None:
    rmse = sklearn_metrics.root_mean_squared_error(rows[1], rows[0])
    mae = sklearn_metrics.mean_absolute_error(rows[1], rows[0])

    assert value_of(Rmse(), rows) == pytest.approx(rmse, abs=1e-12)
    assert value_of(Mae(), rows) == pytest.approx(mae, abs=1e-12)


def test_gauc_is_the_mean_of_scikit_learns_auc_per_group(rows: Rows) -> None:
    mixed = [(scores, labels) for scores, labels in per_group(rows) if 0 < labels.sum() < len(labels)]
    aucs = [sklearn_metrics.roc_auc_score(labels, scores) for scores, labels in mixed]

    assert len(mixed) < len(per_group(rows))
    assert value_of(Gauc(weight="group"), rows) == pytest.approx(np.mean(aucs), abs=1e-12)
    by_rows = np.average(aucs, weights=[len(labels) for _, labels in mixed])
    assert value_of(Gauc(weight="impression"), rows) == pytest.approx(by_rows, abs=1e-12)


@pytest.mark.parametrize("k", [1, 3, 10, 100])
def test_ndcg_is_the_mean_of_scikit_learns_per_group(rows: Rows, k: int) -> None:
    expected = [
        sklearn_metrics.ndcg_score(labels[None], scores[None], k=k)
        for scores, labels in per_group(rows)
        if labels.sum() > 0 and len(labels) > 1
    ]
    longer = np.isin(rows[2], [group for group in np.unique(rows[2]) if (rows[2] == group).sum() > 1])

    value = value_of(Ndcg(k=k), (rows[0][longer], rows[1][longer], rows[2][longer]))

    assert value == pytest.approx(np.mean(expected), abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_ties_give_the_mean_over_all_orders(k: int) -> None:
    scores_N = np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    labels_N = np.array([0.0, 1.0, 1.0, 0.0, 0.0])
    recalls, reciprocals = [], []
    for tied in itertools.permutations([1, 2, 3]):
        ranked = labels_N[[0, *tied, 4]]
        recalls.append(ranked[:k].sum() / 2)
        reciprocals.append(1 / (1 + ranked.argmax()) if ranked.argmax() < k else 0)

    rows = (scores_N, labels_N, np.zeros(5, dtype=np.int64))

    assert value_of(Recall(k=k), rows) == pytest.approx(np.mean(recalls))
    assert value_of(Mrr(k=k), rows) == pytest.approx(np.mean(reciprocals))

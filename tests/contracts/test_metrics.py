"""What every metric promises; a new member of the union is tested as soon as it is listed."""

from typing import Any

import numpy as np
import pytest

from recmoe.evaluation.metrics import METRIC_KINDS, metric_best
from recmoe.evaluation.metrics.ece import EceConfig
from recmoe.evaluation.metrics.metric import Metric

# Six rows, two groups: the first is ranked right, the second wrong; ties in both.
SCORES = np.array([0.9, 0.5, 0.5, 0.2, 0.4, 0.4])
LABELS = np.array([1.0, 0.0, 0.0, 1.0, 0.0, 1.0])
GROUPS = np.array([7, 7, 7, 3, 3, 3])

LOGLOSS = -np.log([0.9, 0.5, 0.5, 0.2, 0.6, 0.4]).sum() / 6
KNOWN_ANSWERS: dict[str, float] = {
    # Positives .9 .2 .4 against negatives .5 .5 .4: 3 + 0 + .5 of 9 pairs.
    "auc": 3.5 / 9,
    "logloss": LOGLOSS,
    "normalized_entropy": LOGLOSS / np.log(2),
    "calibration": 2.9 / 3,
    # Each run of equal scores is a bin: .8, |.8 - 1|, |1 - 0|, .1.
    "ece": (0.8 + 0.2 + 1.0 + 0.1) / 6,
    "rmse": np.sqrt((0.01 + 0.25 + 0.25 + 0.64 + 0.16 + 0.36) / 6),
    "mae": (0.1 + 0.5 + 0.5 + 0.8 + 0.4 + 0.6) / 6,
    # Group 7: 1. Group 3: the positive .4 ties the negative, .2 lies below it: .5 of 2 pairs.
    "gauc_user_mean": (1 + 0.25) / 2,
    "gauc_impression": (1 + 0.25) / 2,
    # Group 3: places 1 and 2 hold one positive between them, place 3 the other.
    "ndcg": 0.5 + 0.5 * ((1 + 1 / np.log2(3)) / 2 + 0.5) / (1 + 1 / np.log2(3)),
    "mrr": 0.5 + 0.5 * (0.5 * 1 + 0.5 * 0.5),
    "recall": 1.0,
}


def kind_name(kind: Any) -> str:
    return str(kind.model_fields["kind"].default)


@pytest.fixture(params=METRIC_KINDS, ids=kind_name)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def fed(kind: Any, *slices: slice) -> Metric:
    """A state that has taken in some of the rows, one update each."""
    metric: Metric = kind().build()
    for rows in slices:
        metric.update(SCORES[rows], LABELS[rows], GROUPS[rows])
    return metric


def value(metric: Metric) -> float:
    return float(metric.compute().values_R[0])


def test_known_answer(kind: Any) -> None:
    assert value(fed(kind, slice(None))) == pytest.approx(KNOWN_ANSWERS[kind_name(kind)], abs=1e-12)


def test_merging_two_halves_equals_the_whole(kind: Any) -> None:
    # The cut goes through both a group and a tie.
    left, right = fed(kind, slice(0, 2)), fed(kind, slice(2, 6))

    left.merge(right)

    assert value(left) == pytest.approx(value(fed(kind, slice(None))), abs=1e-12)


def test_merging_is_associative(kind: Any) -> None:
    left, right = fed(kind, slice(0, 1)), fed(kind, slice(1, 3))
    left.merge(right)
    left.merge(fed(kind, slice(3, 6)))

    other, last = fed(kind, slice(1, 3)), fed(kind, slice(3, 6))
    other.merge(last)
    first = fed(kind, slice(0, 1))
    first.merge(other)

    assert value(left) == pytest.approx(value(first), abs=1e-12)


def test_updates_after_computing_count(kind: Any) -> None:
    metric = fed(kind, slice(0, 3))
    metric.compute()

    metric.update(SCORES[3:], LABELS[3:], GROUPS[3:])

    assert value(metric) == pytest.approx(value(fed(kind, slice(None))), abs=1e-12)


def test_order_of_rows_does_not_matter(kind: Any) -> None:
    order = np.array([4, 2, 0, 5, 1, 3])
    metric: Metric = kind().build()

    metric.update(SCORES[order], LABELS[order], GROUPS[order])

    assert value(metric) == pytest.approx(value(fed(kind, slice(None))), abs=1e-12)


def test_counts_of_one_are_the_value(kind: Any) -> None:
    metric = fed(kind, slice(None))

    values_R = metric.compute(np.ones((2, 6))).values_R

    assert values_R == pytest.approx([value(metric)] * 2, abs=1e-12)


# ECE keeps the bins of all rows in its resamples, so a repeated row does not move them.
@pytest.mark.parametrize("kind", [kind for kind in METRIC_KINDS if kind is not EceConfig], ids=kind_name)
def test_counts_are_repetitions(kind: Any) -> None:
    # Group 7 three times, group 3 once; repeated groups are groups of their own.
    repeat = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 4, 5])
    groups = np.repeat([0, 1, 2, 3], 3)
    repeated: Metric = kind().build()
    repeated.update(SCORES[repeat], LABELS[repeat], groups)

    values_R = fed(kind, slice(None)).compute(np.array([[3.0, 3, 3, 1, 1, 1]])).values_R

    assert values_R[0] == pytest.approx(value(repeated), abs=1e-12)


def test_no_rows_is_no_value_with_a_reason(kind: Any) -> None:
    result = fed(kind).compute()

    assert np.isnan(result.values_R).all()
    assert result.reason == "no rows"


def test_name_and_best_belong_together(kind: Any) -> None:
    assert metric_best(f"ctr.{kind().name}[all]") == kind.best
    assert kind().name.startswith(kind_name(kind))


def test_only_metrics_over_groups_count_them(kind: Any) -> None:
    result = fed(kind, slice(None)).compute()

    assert (result.num_groups_used is not None) == kind.needs_groups
    assert (result.num_groups_dropped is not None) == kind.needs_groups

"""Predictions are added up per task, and how far their mean can be trusted is known."""

import numpy as np
import pyarrow as pa
import pytest

from recmoe.ranking.clock import Clock
from recmoe.ranking.ranked import Ranked
from recmoe.ranking.request import ModelInfo, ScoreInfo
from serving.calibration.moments import Moments
from serving.calibration.sums import PredictionSums


def ranked(*rows: list[float], tasks: tuple[str, ...] = ("ctr",), digest: str = "a") -> Ranked:
    """A ranking of candidates with these predictions."""
    numbers = pa.array(range(len(rows)))
    return Ranked(
        request_id=None,
        model=ModelInfo(name="shop", version="1", digest=digest),
        score=ScoreInfo(name="ctr", formula="ctr"),
        task_names=tasks,
        predictions_CT=np.array(rows, float).reshape(len(rows), len(tasks)),
        score_C=numbers.cast(pa.float64()),
        order_K=np.arange(len(rows)),
        item_ids=numbers,
        item_keys=numbers,
        warnings=[],
        look_ups={},
        clock=Clock(),
    )


def test_predictions_add_up_by_model_and_task_over_requests() -> None:
    sums = PredictionSums()

    sums.observe(ranked([0.5, 2.0], [0.25, 4.0], tasks=("ctr", "seconds")))
    sums.observe(ranked([0.25]))
    sums.observe(ranked([0.9], digest="b"))
    taken = sums.take("a")

    assert taken == {
        "ctr": Moments(2, 3, 1.0, sum_nn=5, sum_ns=2 * 0.75 + 0.25, sum_ss=0.75**2 + 0.25**2),
        "seconds": Moments(1, 2, 6.0, sum_nn=4, sum_ns=12, sum_ss=36),
    }
    assert sums.take("a") == sums.take("b") == {}


@pytest.mark.parametrize("strange", [np.nan, np.inf, -1e200])
def test_what_is_no_prediction_is_left_out(strange: float) -> None:
    sums = PredictionSums()

    sums.observe(ranked([0.5], [strange], [0.25]))

    assert sums.take("a") == {"ctr": Moments(1, 2, 0.75, sum_nn=4, sum_ns=1.5, sum_ss=0.5625)}


def test_error_of_a_mean_is_that_of_requests_not_of_candidates() -> None:
    random = np.random.default_rng(1)
    found = []
    for _ in range(400):
        moments = Moments()
        for user in random.normal(0.3, 0.1, 40):
            # Ten to thirty candidates of a user are nearly alike.
            n = int(random.integers(10, 31))
            total = float(n * user)
            moments = moments.plus(Moments(1, n, total, n * n, n * total, total * total))
        found.append((moments.mean, moments.standard_error))
    means, errors = np.array(found).T

    assert means.std() == pytest.approx(errors.mean(), rel=0.1)
    # Taken for independent, 800 candidates would have less than a third of that.
    assert errors.mean() > 3 * 0.1 / np.sqrt(800)


def test_one_request_has_no_error_that_is_known() -> None:
    assert Moments().standard_error == Moments(1, 50, 5.0, 2500, 250, 25).standard_error == np.inf
    assert np.isnan(Moments().mean)

from dataclasses import replace

import numpy as np
import pytest

from recmoe.errors import EvaluationError
from recmoe.evaluation.predictions import Predictions


def test_rows_of_a_task_are_those_in_its_space(predictions: Predictions) -> None:
    scores, labels = predictions.of_task("cvr")

    assert labels.tolist() == [1, 0, 1, 0, 0, 1]
    assert scores == pytest.approx([0.8, 0.2, 0.6, 0.7, 0.1, 0.9])


def test_concatenating_parts_gives_the_whole(predictions: Predictions) -> None:
    assert predictions.groups_N is not None
    parts = [
        replace(
            predictions,
            predictions_NT=predictions.predictions_NT[rows],
            labels_NT=predictions.labels_NT[rows],
            weights_NT=predictions.weights_NT[rows],
            groups_N=predictions.groups_N[rows],
            slices={"device": predictions.slices["device"][rows]},
            measures={"seconds": {"mae": np.arange(12.0)[rows]}},
        )
        for rows in (slice(0, 5), slice(5, 12))
    ]

    whole = Predictions.concatenate(parts)

    assert whole.num_rows == 12
    np.testing.assert_array_equal(whole.predictions_NT, predictions.predictions_NT)
    np.testing.assert_array_equal(whole.groups_N, predictions.groups_N)
    assert whole.slices["device"].tolist() == predictions.slices["device"].tolist()
    assert whole.measures["seconds"]["mae"].tolist() == list(range(12))
    assert whole.take(np.array([3, 1])).measures["seconds"]["mae"].tolist() == [3, 1]


def test_some_tasks_keep_their_columns(predictions: Predictions) -> None:
    taken = predictions.take_tasks([2, 0])

    assert taken.task_names == ("seconds", "ctr")
    np.testing.assert_array_equal(taken.predictions_NT, predictions.predictions_NT[:, [2, 0]])
    assert taken.of_task("ctr")[1].tolist() == predictions.of_task("ctr")[1].tolist()


def test_prediction_that_is_not_finite_names_task_and_row(predictions: Predictions) -> None:
    predictions.predictions_NT[4, 1] = np.nan

    with pytest.raises(EvaluationError, match="task cvr: 1 of 6 predictions are not finite, the first in row 4"):
        predictions.of_task("cvr")


def test_prediction_outside_the_space_may_be_anything(predictions: Predictions) -> None:
    predictions.predictions_NT[1, 1] = np.inf

    assert len(predictions.of_task("cvr")[0]) == 6

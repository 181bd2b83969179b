"""Baselines on rows with planted answers."""

import builtins
import itertools
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from recmoe.baselines import BASELINES
from recmoe.baselines.boosted_trees import BoostedTrees
from recmoe.baselines.fit import fit_baselines
from recmoe.baselines.id_statistics import IdStatistics, fold_statistics
from recmoe.baselines.logistic_regression import LogisticRegression
from recmoe.baselines.rows import RawRows, spread_intervals
from recmoe.baselines.task_data import TaskData, sampled
from recmoe.data.synthetic import auc
from recmoe.evaluation.baselines import BaselineKind
from recmoe.tasks import TaskConfig

TASKS = TypeAdapter(dict[str, TaskConfig]).validate_python(
    {
        "click": {"kind": "binary", "label": "click"},
        "seconds": {"kind": "regression", "label": "seconds", "space": "click", "transform": "log1p"},
    }
)
NUM_USERS = 300


def planted(num_rows: int, seed: int) -> tuple[RawRows, np.ndarray]:
    """Clicks depend on the user, on a word and on a number's middle; seconds on the number. And the probabilities."""
    random = np.random.default_rng(seed)
    taste_U = np.random.default_rng(99).normal(size=NUM_USERS)
    user_N = random.integers(NUM_USERS, size=num_rows)
    lengths_N = random.integers(0, 3, size=num_rows)
    words_n = random.integers(1, 5, size=lengths_N.sum())
    has_word_N = np.bincount(np.repeat(np.arange(num_rows), lengths_N), weights=words_n == 1, minlength=num_rows) > 0
    x_N = random.uniform(-2, 2, size=num_rows)
    p_N = 1 / (1 + np.exp(-(1.5 * taste_U[user_N] + 2 * has_word_N + 2 * (np.abs(x_N) < 1) - 3)))
    click_N = random.uniform(size=num_rows) < p_N
    seconds_N = np.expm1(3 + x_N + 0.1 * random.normal(size=num_rows))
    missing_N = np.where(random.uniform(size=num_rows) < 0.05, np.nan, x_N)
    rows = RawRows(
        ids={"user": user_N + 1},
        lists={"words": (words_n, lengths_N)},
        numbers={"x": missing_N},
        labels_NT=np.stack([click_N, np.where(click_N, seconds_N, 0)], axis=1).astype(np.float32),
        weights_NT=np.stack([np.ones(num_rows), click_N], axis=1).astype(np.float32),
        groups_N=None,
    )
    return rows, p_N


@pytest.mark.parametrize("kind", BASELINES)
def test_each_kind_finds_what_was_planted(kind: BaselineKind) -> None:
    train, _ = planted(8000, 1)
    validation, _ = planted(2000, 2)
    test, p_N = planted(4000, 3)

    found = fit_baselines([kind], TASKS, train=train, validation=validation, test=test, num_threads=1, seed=0)

    predicted_NT = found.predictions_NT[kind]
    click_N = test.labels_NT[:, 0] > 0
    assert auc(click_N, predicted_NT[:, 0]) > auc(click_N, p_N) - 0.035
    assert predicted_NT[:, 0].mean() == pytest.approx(click_N.mean(), rel=0.1)
    errors = np.abs(np.log1p(predicted_NT[click_N, 1]) - np.log1p(test.labels_NT[click_N, 1]))
    assert np.median(errors) < 0.2
    assert set(found.settings[kind]) == {"click", "seconds"}


@pytest.mark.parametrize("kind", BASELINES)
def test_each_kind_gives_the_same_numbers_again(kind: BaselineKind) -> None:
    train, _ = planted(2000, 1)
    test, _ = planted(500, 3)

    first, again = (
        fit_baselines([kind], TASKS, train=train, validation=None, test=test, num_threads=1, seed=0) for _ in range(2)
    )

    np.testing.assert_array_equal(first.predictions_NT[kind], again.predictions_NT[kind])


def test_label_of_one_value_is_predicted_as_it_is() -> None:
    train, _ = planted(300, 1)
    train.labels_NT[:, 0] = 0
    train.weights_NT[:, 1] = 0

    found = fit_baselines(list(BASELINES), TASKS, train=train, validation=None, test=train, num_threads=1, seed=0)  # type: ignore[arg-type]

    assert found.settings["boosted_trees"] == dict.fromkeys(TASKS, "constant: nothing to learn")
    assert not found.predictions_NT["logistic_regression"].any()


def test_rare_label_stays_whole_and_its_rate_is_kept_by_weights() -> None:
    labels = np.zeros(1000)
    labels[::100] = 1
    data = TaskData("binary", np.arange(1000), labels, np.ones(1000))

    kept = sampled(data, most=100, seed=0)

    assert len(kept.rows_M) == 100
    assert kept.targets_M.sum() == 10
    assert kept.mean == pytest.approx(0.01)
    assert (np.diff(kept.rows_M) > 0).all()


def test_values_are_sampled_evenly() -> None:
    data = TaskData("regression", np.arange(1000), np.arange(1000.0), np.ones(1000))

    kept = sampled(data, most=100, seed=0)

    assert len(np.unique(kept.rows_M)) == 100
    assert set(kept.weights_M) == {10.0}


def test_no_row_sees_its_own_label_in_its_statistics() -> None:
    rows, _ = planted(50, 1)
    unique = RawRows({"user": np.arange(1, 51)}, {}, {}, rows.labels_NT, rows.weights_NT, None)
    data = TaskData("binary", np.arange(50), rows.labels_NT[:, 0].astype(float), np.ones(50))

    own = IdStatistics.learn(unique, data).of(unique, np.arange(50))["user"]
    folded = fold_statistics(unique, data, seed=0)["user"]

    assert np.corrcoef(own, data.targets_M)[0, 1] == pytest.approx(1.0)
    assert np.corrcoef(folded, data.targets_M)[0, 1] < 0


def test_statistics_are_drawn_to_the_mean_and_unknown_ids_have_it() -> None:
    rows = RawRows({"user": np.array([7, 7, 8, 8])}, {}, {}, np.zeros((4, 1)), np.ones((4, 1)), None)
    data = TaskData("binary", np.arange(4), np.array([1.0, 1.0, 0.0, 0.0]), np.ones(4))

    learned = IdStatistics.learn(rows, data)

    asked = RawRows({"user": np.array([7, 9])}, {}, {}, np.zeros((2, 1)), np.ones((2, 1)), None)
    np.testing.assert_allclose(learned.of(asked, np.arange(2))["user"], [(2 + 20 * 0.5) / 22, 0.5])


def test_large_splits_are_read_in_intervals_at_equal_distances() -> None:
    intervals = spread_intervals(1_000_000, 6400)

    assert spread_intervals(50, 100) == [(0, 50)]
    assert spread_intervals(0, 100) == []
    assert sum(stop - start for start, stop in intervals) == 6400
    assert (intervals[0][0], intervals[-1][1]) == (0, 1_000_000)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(intervals))


@pytest.mark.parametrize(
    ("baseline", "package", "error", "told"),
    [
        (BoostedTrees, "lightgbm", OSError("no libgomp.so.1"),
         "lightgbm cannot be loaded (no libgomp.so.1); on Debian: apt-get install libgomp1"),
        (BoostedTrees, "lightgbm", ImportError("no"),
         "lightgbm cannot be loaded (no); pip install 'recmoe[baselines]'"),
        (LogisticRegression, "sklearn.linear_model", ImportError("no"),
         "scikit-learn cannot be loaded (no); pip install 'recmoe[baselines]'"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_is_left_out_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, baseline: type[Any], package: str, error: Exception, told: str
) -> None:
    real = builtins.__import__

    def refuse(name: str, *arguments: Any) -> Any:
        if name == package:
            raise error
        return real(name, *arguments)

    train, _ = planted(200, 1)
    monkeypatch.setattr(builtins, "__import__", refuse)
    lines: list[str] = []

    found = fit_baselines(
        [baseline.kind],
        TASKS,
        train=train,
        validation=None,
        test=train,
        num_threads=1,
        seed=0,
        on_progress=lines.append,
    )

    assert found.missing == {baseline.kind: told}
    assert found.predictions_NT == {}
    assert lines[0].endswith(f"is left out: {told}")

"""Logistic regression on one-hot ids and binned numbers; ridge regression for values."""

# N rows, D columns

import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recmoe.baselines.baseline import Fitted
from recmoe.baselines.rows import RawRows
from recmoe.baselines.task_data import TaskData
from recmoe.evaluation.baselines import BaselineKind

NUM_BINS = 20
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Inverse strengths of the regularisation, from the strongest on; each starts where the one before has ended."""
MAX_ITERATIONS = 200
TOLERANCE = 1e-5
"""The solver divides by the number of rows: a rare task would count as solved at its start with a larger one."""

Matrix = Any
"""A sparse matrix of scipy, which has no types."""


class LogisticRegression:
    """Every id of the training rows has its own column; numbers are z-scores, and bins where these validate better.

    Args:
        rows: the training rows.
        num_threads: not used; the solver is single-threaded.
        seed: not used; nothing is drawn.
    """

    kind: ClassVar[BaselineKind] = "logistic_regression"

    def __init__(self, rows: RawRows, *, num_threads: int, seed: int) -> None:
        del num_threads, seed
        self._known = {name: np.unique(keys_N) for name, keys_N in rows.ids.items()}
        self._known |= {name: np.unique(keys_n) for name, (keys_n, _) in rows.lists.items()}
        self._edges = {name: _edges(x_N) for name, x_N in rows.numbers.items()}
        self._scales = {name: _scale(x_N) for name, x_N in rows.numbers.items()}
        self._train = self._matrix(rows)
        num_ids = sum(map(len, self._known.values()))
        # Of a number's columns the bins come first, then whether it is missing, then the z-score.
        is_bin = [[True] * (len(edges) + 1) + [False, False] for edges in self._edges.values()]
        self._is_bin_D = np.array([False] * num_ids + [place for places in is_bin for place in places], dtype=bool)
        self._last: tuple[RawRows, Matrix] | None = None

    @staticmethod
    def absence() -> str | None:
        """See ``Baseline``."""
        try:
            import sklearn.linear_model  # noqa: F401
        except (ImportError, OSError) as error:
            return f"scikit-learn cannot be loaded ({error}); pip install 'recmoe[baselines]'"
        return None

    def fit(self, train: TaskData, validation: TaskData, validation_rows: RawRows) -> Fitted:
        """See ``Baseline``."""
        models = [
            self._path(train, validation, validation_rows, is_binned=is_binned)
            for is_binned in ((False, True) if self._is_bin_D.any() else (False,))
        ]
        return min(models, key=lambda one: one[0])[1]

    def _path(
        self, train: TaskData, validation: TaskData, validation_rows: RawRows, *, is_binned: bool
    ) -> tuple[float, Fitted]:
        """The best of all strengths, and its validation loss."""
        x = self._train[train.rows_M]
        # Ids that the task's rows do not hold would keep a weight of 0.
        columns = np.flatnonzero((x.getnnz(axis=0) > 0) & (is_binned | ~self._is_bin_D))
        x = x[:, columns]
        held_out = self._of(validation_rows)[validation.rows_M][:, columns]
        solve = _solve_ridge if train.output == "regression" else _solve_logistic
        best_loss, best, chosen, num_worse = np.inf, None, STRENGTHS[0], 0
        before = None
        for strength in STRENGTHS:
            predict, before = solve(x, train, strength, before)
            loss = validation.loss(predict(held_out)) if len(validation.rows_M) else 0.0
            num_worse = 0 if loss < best_loss else num_worse + 1
            if loss < best_loss:
                best_loss, best, chosen = loss, predict, strength
            if num_worse == 2:
                break
        assert best is not None
        final = best
        numbers = ", binned numbers" if is_binned else ""
        return best_loss, Fitted(lambda rows: final(self._of(rows)[:, columns]), f"C = {chosen:g}{numbers}")

    def _of(self, rows: RawRows) -> Matrix:
        """The matrix of a split; the last one is kept for the next task."""
        if self._last is None or self._last[0] is not rows:
            self._last = rows, self._matrix(rows)
        return self._last[1]

    def _matrix(self, rows: RawRows) -> Matrix:
        from scipy import sparse

        blocks = [_one_hot(keys_N, np.arange(rows.num_rows), self._known[name], rows.num_rows)
                  for name, keys_N in rows.ids.items()]  # fmt: skip
        for name, (keys_n, lengths_N) in rows.lists.items():
            owners_n = np.repeat(np.arange(rows.num_rows), lengths_N)
            blocks.append(_one_hot(keys_n, owners_n, self._known[name], rows.num_rows))
        for name, x_N in rows.numbers.items():
            blocks.append(_binned(x_N, self._edges[name]))
            mean, deviation = self._scales[name]
            z_N = np.nan_to_num((x_N - mean) / deviation).clip(-5, 5)
            blocks.append(sparse.csr_matrix(z_N[:, None]))
        return sparse.hstack(blocks, format="csr")


def _one_hot(keys_n: NDArray[Any], rows_n: NDArray[Any], known: NDArray[Any], num_rows: int) -> Matrix:
    """A column per known key, 1 where the row has it; an unknown key has none."""
    from scipy import sparse

    places_n = np.searchsorted(known, keys_n)
    is_known_n = places_n < len(known)
    is_known_n[is_known_n] = known[places_n[is_known_n]] == keys_n[is_known_n]
    matrix = sparse.csr_matrix(
        (np.ones(int(is_known_n.sum())), (rows_n[is_known_n], places_n[is_known_n])), shape=(num_rows, len(known))
    )
    matrix.data[:] = 1.0  # A key that stands twice in a list counts once.
    return matrix


def _binned(x_N: NDArray[np.float64], edges: NDArray[np.float64]) -> Matrix:
    """A column per bin, the last one for missing numbers."""
    bins_N = np.where(np.isnan(x_N), len(edges) + 1, np.searchsorted(edges, x_N, side="right"))
    return _one_hot(bins_N, np.arange(len(x_N)), np.arange(len(edges) + 2), len(x_N))


def _edges(x_N: NDArray[np.float64]) -> NDArray[np.float64]:
    known = x_N[~np.isnan(x_N)]
    if len(known) == 0:
        return np.zeros(0)
    values = np.unique(known)
    # Few values are a category each.
    return values[1:] if len(values) <= NUM_BINS else np.unique(np.quantile(known, np.arange(1, NUM_BINS) / NUM_BINS))


def _scale(x_N: NDArray[np.float64]) -> tuple[float, float]:
    known = x_N[~np.isnan(x_N)]
    if len(known) == 0:
        return 0.0, 1.0
    return float(known.mean()), float(known.std()) or 1.0


Predict = Callable[[Matrix], NDArray[np.float64]]


def _solve_logistic(x: Matrix, train: TaskData, strength: float, before: Any) -> tuple[Predict, Any]:
    from sklearn.linear_model import LogisticRegression as Solver

    solver = before or Solver(solver="lbfgs", max_iter=MAX_ITERATIONS, tol=TOLERANCE, warm_start=True)
    solver.set_params(C=strength)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # A solution that is nearly there will do.
        solver.fit(x, train.targets_M > 0.5, sample_weight=train.weights_M)
    weights_D, bias = solver.coef_[0].copy(), float(solver.intercept_[0])
    return lambda rows: 1 / (1 + np.exp(-(rows @ weights_D + bias))), solver


def _solve_ridge(x: Matrix, train: TaskData, strength: float, before: Any) -> tuple[Predict, Any]:
    from sklearn.linear_model import Ridge

    low, high = train.targets_M.min(), train.targets_M.max()
    solver = Ridge(alpha=1 / strength, solver="sparse_cg", tol=TOLERANCE, max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solver.fit(x, train.targets_M, sample_weight=train.weights_M)
    weights_D, bias = solver.coef_.ravel().copy(), float(solver.intercept_)
    return lambda rows: (rows @ weights_D + bias).clip(low, high), before

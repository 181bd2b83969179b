"""Gradient-boosted trees by LightGBM."""

# N rows, M rows of a task, F columns

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recmoe.baselines.baseline import Fitted
from recmoe.baselines.id_statistics import IdStatistics, codes_by_frequency, fold_statistics
from recmoe.baselines.rows import RawRows
from recmoe.baselines.task_data import TaskData
from recmoe.evaluation.baselines import BaselineKind

PATIENCE = 25
"""Trees without a better validation loss before it stops."""
FEW_VALUES = 64
"""An id of no more values is a category in every setting."""

SETTINGS: dict[str, dict[str, Any]] = {
    # As someone who tries LightGBM on a frame with category columns would have it.
    "ids as categories": {"num_iterations": 300, "learning_rate": 0.1, "num_leaves": 31, "min_data_in_leaf": 20},
    # Ids of many values by the mean of the label among their training rows: nothing to memorise.
    "ids as statistics": {"num_iterations": 400, "learning_rate": 0.07, "num_leaves": 15, "min_data_in_leaf": 40,
                          "feature_fraction": 0.8, "lambda_l2": 5.0},
}  # fmt: skip


class BoostedTrees:
    """Numbers as they are, ids as categories or as statistics of the label, whichever validates better.

    Args:
        rows: the training rows.
        num_threads: of LightGBM.
        seed: of LightGBM and of the folds of the statistics.
    """

    kind: ClassVar[BaselineKind] = "boosted_trees"

    def __init__(self, rows: RawRows, *, num_threads: int, seed: int) -> None:
        self._rows = rows
        self._seed = seed
        self._known = {name: codes_by_frequency(keys_N) for name, keys_N in rows.ids.items()}
        self._parameters = {
            "verbosity": -1,
            "num_threads": num_threads,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "max_cat_threshold": 32,
        }

    @staticmethod
    def absence() -> str | None:
        """See ``Baseline``."""
        try:
            import lightgbm  # noqa: F401
        except ImportError as error:
            return f"lightgbm cannot be loaded ({error}); pip install 'recmoe[baselines]'"
        except OSError as error:
            return f"lightgbm cannot be loaded ({error}); on Debian: apt-get install libgomp1"
        return None

    def fit(self, train: TaskData, validation: TaskData, validation_rows: RawRows) -> Fitted:
        """See ``Baseline``."""
        statistics = IdStatistics.learn(self._rows, train)
        train_statistics = fold_statistics(self._rows, train, seed=self._seed)
        fitted = {}
        for setting in SETTINGS:
            x_MF, categories = self._columns(self._rows, train.rows_M, train_statistics, setting)
            held_out, _ = self._columns(
                validation_rows, validation.rows_M, statistics.of(validation_rows, validation.rows_M), setting
            )
            fitted[setting] = self._train(train, x_MF, categories, validation, held_out, SETTINGS[setting])
        chosen = min(fitted, key=lambda setting: fitted[setting][1])
        booster = fitted[chosen][0]

        def predict(rows: RawRows) -> NDArray[np.float64]:
            places_N = np.arange(rows.num_rows)
            x_NF, _ = self._columns(rows, places_N, statistics.of(rows, places_N), chosen)
            return np.asarray(booster.predict(x_NF, num_threads=self._parameters["num_threads"]))

        return Fitted(predict, f"{chosen}, {booster.num_trees()} trees")

    def _train(
        self,
        train: TaskData,
        x_MF: NDArray[np.float64],
        categories: list[int],
        validation: TaskData,
        held_out: NDArray[np.float64],
        setting: dict[str, Any],
    ) -> tuple[Any, float]:
        """The trees, and their validation loss."""
        import lightgbm

        objective = "binary" if train.output == "binary" else "regression"
        parameters = {**self._parameters, **setting, "objective": objective}
        num_iterations = parameters.pop("num_iterations")
        data = lightgbm.Dataset(
            x_MF, train.targets_M, weight=train.weights_M, categorical_feature=categories, params=self._parameters
        )
        if not len(validation.rows_M):
            return lightgbm.train(parameters, data, num_boost_round=num_iterations // 4), 0.0
        watched = lightgbm.Dataset(held_out, validation.targets_M, weight=validation.weights_M, reference=data)
        booster = lightgbm.train(
            parameters,
            data,
            num_boost_round=num_iterations,
            valid_sets=[watched],
            callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
        )
        return booster, validation.loss(np.asarray(booster.predict(held_out)))

    def _columns(
        self, rows: RawRows, places_M: NDArray[np.int64], statistics: dict[str, NDArray[np.float64]], setting: str
    ) -> tuple[NDArray[np.float64], list[int]]:
        """x_MF, and which columns are categories."""
        columns: list[NDArray[np.float64]] = [x_N[places_M] for x_N in rows.numbers.values()]
        categories = []
        for name, keys_N in rows.ids.items():
            known = self._known[name]
            codes_M, counts_M = known.of(keys_N[places_M])
            if setting == "ids as categories" or known.num_values <= FEW_VALUES:
                categories.append(len(columns))
                columns.append(codes_M)
            if setting == "ids as statistics" and known.num_values > FEW_VALUES:
                columns += [statistics[name], np.log1p(counts_M)]
        for name, (_, lengths_N) in rows.lists.items():
            columns += [lengths_N[places_M].astype(np.float64), statistics[name]]
        return np.stack(columns, axis=1), categories

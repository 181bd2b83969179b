"""Ids as numbers for trees: how often they occur, and the mean of the label among their training rows."""

# N rows, M rows of a task, V distinct ids

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recmoe.baselines.rows import RawRows
from recmoe.baselines.task_data import TaskData
from recmoe.features.kinds.raw_keys import Keys

Floats = NDArray[np.float64]

PRIOR_ROWS = 20.0
"""Rows of the mean label that every id has beside its own."""
NUM_FOLDS = 5


@dataclass(frozen=True)
class Codes:
    """Ids of the training rows, the most frequent with code 0."""

    values_V: Keys
    """Sorted."""
    codes_V: Floats
    counts_V: Floats

    @property
    def num_values(self) -> int:
        """Different ids."""
        return len(self.values_V)

    def of(self, keys_M: Keys) -> tuple[Floats, Floats]:
        """codes_M and counts_M; NaN and 0 for an id that the training rows do not hold."""
        places_M, is_known_M = look_up(self.values_V, keys_M)
        return (
            np.where(is_known_M, self.codes_V[places_M], np.nan),
            np.where(is_known_M, self.counts_V[places_M], 0.0),
        )


def codes_by_frequency(keys_N: Keys) -> Codes:
    """Codes of the ids of a column."""
    values_V, counts_V = np.unique(keys_N, return_counts=True)
    codes_V = np.empty(len(values_V))
    codes_V[np.argsort(-counts_V, kind="stable")] = np.arange(len(values_V))
    return Codes(values_V, codes_V, counts_V.astype(np.float64))


def look_up(values_V: Keys, keys_M: Keys) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Where keys stand among sorted values, and which do; others stand at 0. At least one value."""
    places_M = np.searchsorted(values_V, keys_M).clip(max=len(values_V) - 1)
    is_known_M = values_V[places_M] == keys_M
    return np.where(is_known_M, places_M, 0), is_known_M


@dataclass(frozen=True)
class IdStatistics:
    """The mean of a task's target by id, drawn to the mean of all: (sum + 20 · mean) / (rows + 20)."""

    mean: float
    by_id: Mapping[str, tuple[Keys, Floats]]
    """By feature: sorted ids, and the mean of each."""
    by_listed_id: Mapping[str, tuple[Keys, Floats]]
    """The same for ids in lists."""

    @classmethod
    def learn(cls, rows: RawRows, train: TaskData) -> "IdStatistics":
        """From the task's training rows."""
        every = np.arange(len(train.rows_M))
        by_id = {name: _means(keys_N[train.rows_M], every, train) for name, keys_N in rows.ids.items()}
        by_listed_id = {}
        for name, (keys_n, lengths_N) in rows.lists.items():
            chosen_m, owners_m = list_entries(lengths_N, train.rows_M)
            by_listed_id[name] = _means(keys_n[chosen_m], owners_m, train)
        return cls(train.mean, by_id, by_listed_id)

    def of(self, rows: RawRows, places_M: NDArray[np.int64]) -> dict[str, Floats]:
        """The mean of each row's id by feature; of a list, the mean over its ids. Unknown ids have the mean of all."""
        found = {name: self._found(self.by_id[name], keys_N[places_M]) for name, keys_N in rows.ids.items()}
        for name, (keys_n, lengths_N) in rows.lists.items():
            chosen_m, owners_m = list_entries(lengths_N, places_M)
            values_m = self._found(self.by_listed_id[name], keys_n[chosen_m])
            sums_M = np.bincount(owners_m, weights=values_m, minlength=len(places_M))
            lengths_M = lengths_N[places_M]
            found[name] = np.where(lengths_M > 0, sums_M / np.maximum(lengths_M, 1), self.mean)
        return found

    def _found(self, means: tuple[Keys, Floats], keys_M: Keys) -> Floats:
        values_V, means_V = means
        if len(values_V) == 0:
            return np.full(len(keys_M), self.mean)
        places_M, is_known_M = look_up(values_V, keys_M)
        return np.where(is_known_M, means_V[places_M], self.mean)


def fold_statistics(rows: RawRows, train: TaskData, *, seed: int) -> dict[str, Floats]:
    """The statistics of the training rows themselves, each from the other four fifths: no row sees its own label."""
    fold_M = np.random.default_rng(seed).integers(NUM_FOLDS, size=len(train.rows_M))
    found: dict[str, Floats] = {name: np.empty(len(train.rows_M)) for name in (*rows.ids, *rows.lists)}
    for fold in range(NUM_FOLDS):
        is_in_M = fold_M == fold
        learned = IdStatistics.learn(rows, train.select(~is_in_M))
        for name, values in learned.of(rows, train.rows_M[is_in_M]).items():
            found[name][is_in_M] = values
    return found


def list_entries(lengths_N: NDArray[np.int64], rows_M: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Places of the list entries of some rows, and which of the rows each belongs to."""
    starts_M = (np.cumsum(lengths_N) - lengths_N)[rows_M]
    lengths_M = lengths_N[rows_M]
    owners_m = np.repeat(np.arange(len(rows_M)), lengths_M)
    first_m = np.repeat(np.cumsum(lengths_M) - lengths_M, lengths_M)
    return starts_M[owners_m] + np.arange(len(owners_m)) - first_m, owners_m


def _means(keys_m: Keys, owners_m: NDArray[Any], train: TaskData) -> tuple[Keys, Floats]:
    values_V, value_m = np.unique(keys_m, return_inverse=True)
    weights_m = train.weights_M[owners_m]
    sums_V = np.bincount(value_m, weights=weights_m * train.targets_M[owners_m], minlength=len(values_V))
    rows_V = np.bincount(value_m, weights=weights_m, minlength=len(values_V))
    return values_V, (sums_V + PRIOR_ROWS * train.mean) / (rows_V + PRIOR_ROWS)

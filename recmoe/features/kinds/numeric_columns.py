"""NumberColumns: several numeric features encoded in one go, for the few rows of a request."""

# B rows, F features

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from recmoe.features.kinds.parts import EncodedBlock, Floats32, marked
from recmoe.features.statistics import NumericStatistics
from recmoe.features.transforms import LARGEST, Floats, as_floats, bucketize, position, signed_log1p


@dataclass(frozen=True)
class NumberColumn:
    """What becomes of the numbers of one feature; see the kind ``numeric``."""

    feature: str
    column: str
    missing: float | None
    clip: tuple[float, float] | None
    log1p: bool
    zscore: bool
    numbers: NumericStatistics
    value: str | None
    """Dense column of the number itself, if it has that form; the other forms likewise."""
    position: str | None
    bucket: str | None
    """Sparse key."""


class NumberColumns:
    """Columns of one number per row; see ``Block``.

    Each step is that of ``NumericReader``, on all columns at once, with numbers that change nothing where a feature
    does not take the step. Only the search for buckets goes column by column.

    Args:
        columns: of F features.
    """

    def __init__(self, columns: Sequence[NumberColumn]) -> None:
        self.columns = tuple(column.column for column in columns)
        self.keys = tuple(column.bucket for column in columns if column.bucket is not None)
        values = [column.value for column in columns if column.value is not None]
        self.dense = (*values, *(column.position for column in columns if column.position is not None))
        self._features = tuple(column.feature for column in columns)
        self._missing_F1 = _numbers(columns, lambda column: np.nan if column.missing is None else column.missing)
        self._low_F1 = _numbers(columns, lambda column: -np.inf if column.clip is None else column.clip[0])
        self._high_F1 = _numbers(columns, lambda column: np.inf if column.clip is None else column.clip[1])
        self._mean_F1 = _numbers(columns, lambda column: column.numbers.mean)
        self._shift_F1 = _numbers(columns, lambda column: column.numbers.mean if column.zscore else 0.0)
        self._scale_F1 = _numbers(columns, lambda column: column.numbers.std if column.zscore else 1.0)
        self._edges = [np.asarray(column.numbers.edges, np.float64) for column in columns]
        self._logarithms = _places([column.log1p for column in columns])
        self._unlearned = _places([not column.numbers.is_known for column in columns])
        self._valued = _places([column.value is not None for column in columns])
        self._placed = _places([column.position is not None for column in columns])
        self._bucketed = _places([column.bucket is not None for column in columns])
        self._stand_in_F1 = self._compressed(np.clip(self._missing_F1, self._low_F1, self._high_F1))

    def encode(self, values: pa.Array) -> EncodedBlock:
        raw_FB = as_floats(pa.chunked_array([values])).reshape(len(self.columns), -1)
        is_null_FB = np.isnan(raw_FB)
        x_FB = np.where(is_null_FB, self._missing_F1, raw_FB)
        x_FB = self._compressed(np.clip(x_FB, self._low_F1, self._high_F1))
        is_too_large_FB = np.abs(x_FB) > LARGEST
        if is_too_large_FB.any():
            x_FB = np.where(is_too_large_FB, self._stand_in_F1, x_FB)
        x_FB[self._unlearned] = np.nan
        is_missing_FB = np.isnan(x_FB)
        rows_KB = np.empty((len(self._bucketed), x_FB.shape[1]), np.int64)
        for index, place in enumerate(self._bucketed):
            rows_KB[index] = np.where(is_missing_FB[place], 0, bucketize(x_FB[place], self._edges[place]) + 1)
        return EncodedBlock(
            rows_KB=rows_KB,
            dense_FB=self._dense(np.where(is_missing_FB, self._mean_F1, x_FB)),
            missing=marked(self._features, is_null_FB),
            unknown={},
        )

    def _compressed(self, x_FB: Floats) -> Floats:
        if self._logarithms:
            x_FB[self._logarithms] = signed_log1p(x_FB[self._logarithms])
        return x_FB

    def _dense(self, filled_FB: Floats) -> Floats32:
        dense_FB = np.empty((len(self.dense), filled_FB.shape[1]), np.float32)
        scaled_FB = (filled_FB - self._shift_F1) / self._scale_F1
        dense_FB[: len(self._valued)] = np.clip(scaled_FB[self._valued], -LARGEST, LARGEST)
        for index, place in enumerate(self._placed, start=len(self._valued)):
            dense_FB[index] = position(filled_FB[place], self._edges[place])
        return dense_FB


def _numbers(columns: Sequence[NumberColumn], of: Callable[[NumberColumn], float]) -> Floats:
    return np.array([[of(column)] for column in columns], np.float64)


def _places(marks: Sequence[bool]) -> list[int]:
    return [place for place, is_marked in enumerate(marks) if is_marked]

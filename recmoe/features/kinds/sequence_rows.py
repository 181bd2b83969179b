"""SequenceRows: the aligned columns of a sequence, checked and cut to its length; ages_of: when became how long ago."""

# B rows, N entries of all rows

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recmoe.errors import DataError
from recmoe.features.arrow_ids import IdValues, id_list_column, is_among_last
from recmoe.features.kinds.parts import Ints
from recmoe.features.raw_column import RawColumn
from recmoe.features.times import as_times, time_list_column
from recmoe.features.transforms import Floats


@dataclass(frozen=True)
class Entries:
    """The entries of B rows, row by row, the newest of a row last; of a long history only the newest."""

    ids: Mapping[str, list[IdValues]]
    """By sparse key, chunk by chunk; null where an entry has no id."""
    lengths_B: Ints
    """Entries of each row, in every column."""
    times_N: Floats | None
    """NaN where missing; None without a column of times."""
    now_B: Floats | None
    """Time of each row, NaN where missing; None without a column of it."""


class SequenceRows:
    """Reads the columns of a sequence.

    Example: two rows of ``items`` and ``shops``, at most two entries long::

        items [["a", "b", "c"], null]    ids b, c    lengths_B = [2, 0]
        shops [[7, 7, null], []]         ids 7, –

    Args:
        name: of the feature, for errors.
        columns: of ids, by sparse key.
        time: with the times of the entries, if any.
        now: with the time of the row, if any.
        max_length: entries kept, the last ones.
    """

    def __init__(
        self,
        *,
        name: str,
        columns: Mapping[str, RawColumn],
        time: RawColumn | None,
        now: RawColumn | None,
        max_length: int,
    ) -> None:
        self._name = name
        self.columns = columns
        self._time = time
        self._now = now
        self._max_length = max_length

    def read(self, rows: pa.Table, *, first_row: int = 0) -> Entries:
        """The entries of some rows.

        Args:
            rows: raw columns.
            first_row: number of the first one, for errors.

        Raises:
            SchemaError: a column is missing or of a wrong type.
            DataError: columns of one row hold lists of unequal lengths, or a time is no number.
        """
        ids, lengths = {}, {}
        for key, column in self.columns.items():
            values = column.read(rows, feature=self._name)
            chunks = list(id_list_column(values, separator=column.separator, max_length=None, keep_missing=True))
            lengths[column.name] = _concatenated([lengths_B for _, lengths_B in chunks])
            ids[key] = [self._newest(chunk, lengths_B) for chunk, lengths_B in chunks]
        times_N = None
        if self._time is not None:
            times_N, lengths[self._time.name] = self._times(self._time, rows, first_row)
        lengths_B = self._common(lengths, first_row)
        if times_N is not None:
            times_N = times_N[is_among_last(lengths_B, self._max_length)]
        now_B = None if self._now is None else as_times(self._now.read(rows, feature=self._name))
        return Entries(ids, np.minimum(lengths_B, self._max_length), times_N, now_B)

    def _newest(self, ids: IdValues, lengths_B: Ints) -> IdValues:
        if lengths_B.max(initial=0) <= self._max_length:
            return ids
        return ids.keep(is_among_last(lengths_B, self._max_length))

    def _times(self, column: RawColumn, rows: pa.Table, first_row: int) -> tuple[Floats, Ints]:
        values = column.read(rows, feature=self._name)
        where = column.where(self._name)
        chunks = list(time_list_column(values, separator=column.separator, where=where, first_row=first_row))
        times_N = np.concatenate([times for times, _ in chunks]) if chunks else np.zeros(0)
        return times_N, _concatenated([lengths_B for _, lengths_B in chunks])

    def _common(self, lengths: Mapping[str, Ints], first_row: int) -> Ints:
        """How many entries each row has, if all columns agree."""
        (first, expected_B), *others = lengths.items()
        for name, lengths_B in others:
            is_wrong_B = lengths_B != expected_B
            if is_wrong_B.any():
                row = int(is_wrong_B.argmax())
                raise DataError(
                    f"columns of feature {self._name!r} hold lists of unequal lengths in row {first_row + row}: "
                    f"{expected_B[row]} in {first!r}, {lengths_B[row]} in {name!r}; make them alike: entry i of each "
                    "column belongs to one event"
                )
        return expected_B


def ages_of(times_N: Floats, lengths_B: Ints, now_B: Floats | None) -> Floats:
    """How long before the row each entry was; never below zero.

    An entry without a time has that of the one after it, else of the one before it. A row without a time has that of
    its newest entry.

    Example: the times [3, –, 9] in a row at time 10 are the ages [7, 1, 1], and without the time of the row [6, 0, 0].
    """
    ends_B = np.cumsum(lengths_B)
    row_N = np.repeat(np.arange(len(lengths_B)), lengths_B)
    filled_N = _filled(times_N, first_N=(ends_B - lengths_B)[row_N], end_N=ends_B[row_N])
    newest_B = np.full(len(lengths_B), np.nan)
    newest_B[lengths_B > 0] = filled_N[ends_B[lengths_B > 0] - 1]
    if now_B is not None:
        newest_B = np.where(np.isnan(now_B), newest_B, now_B)
    ages_N: Floats = np.nan_to_num(np.maximum(newest_B[row_N] - filled_N, 0.0), nan=0.0)
    return ages_N


def _filled(times_N: Floats, *, first_N: Ints, end_N: Ints) -> Floats:
    """Missing times of the entry after, else before, in the same row, which goes from first to end."""
    is_missing_N: NDArray[np.bool_] = np.isnan(times_N)
    if not is_missing_N.any():
        return times_N
    place_N = np.arange(len(times_N))
    after_N = np.minimum.accumulate(np.where(is_missing_N, len(times_N), place_N)[::-1])[::-1]
    before_N = np.maximum.accumulate(np.where(is_missing_N, -1, place_N))
    source_N = np.where(after_N < end_N, after_N, np.where(before_N >= first_N, before_N, place_N))
    return times_N[source_N]


def _concatenated(parts: list[Ints]) -> Ints:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)

"""KeyCounter: how often each id of a table occurs, as 64-bit keys, in bounded memory."""

# n ids of a chunk, m different ids so far

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recmoe.features.arrow_ids import IdValues
from recmoe.features.id_keys import UInt64s, canonical, keys

Counts = NDArray[np.int64]

_MERGE_AT = 1 << 20


class KeyCounter:
    """Counts the ids of all features of a table, chunk by chunk; 16 bytes per different id.

    Beyond ``limit`` different ids those seen least so far are forgotten, and begin at zero when they come again: an id
    that is frequent is counted too low by as much at most as those that were forgotten had been seen. The idea is that
    of Manku and Motwani's lossy counting, VLDB 2002, https://www.vldb.org/conf/2002/S10P03.pdf.

    Args:
        limit: different ids counted at once, those of ``never_forgotten`` aside.
        never_forgotten: ascending; ids that hold a row, whose counts must be right.
    """

    def __init__(self, *, limit: int, never_forgotten: UInt64s) -> None:
        self._limit = limit
        self._never_forgotten = never_forgotten
        self._keys: UInt64s = np.zeros(0, np.uint64)
        self._counts: Counts = np.zeros(0, np.int64)
        self._pending: list[tuple[UInt64s, Counts]] = []
        self._num_pending = 0

    def add(self, ids: IdValues) -> None:
        """Count the ids of a chunk; missing ones do not count."""
        distinct = ids.distinct
        if ids.places is None:
            self._append(*np.unique(keys(distinct.drop_null()), return_counts=True))
            return
        # The place behind the last distinct id collects the nulls, which have place -1.
        counted = np.bincount(np.where(ids.places < 0, len(distinct), ids.places), minlength=len(distinct) + 1)[:-1]
        is_counted = (counted > 0) & distinct.is_valid().to_numpy(zero_copy_only=False)
        self._append(keys(distinct.filter(pa.array(is_counted))), counted[is_counted])

    def add_repeated(self, id_: str | int, count: int) -> None:
        """Count one id several times."""
        if count:
            self._append(keys(canonical(pa.array([id_]))), np.array([count]))

    def finish(self) -> tuple[UInt64s, Counts]:
        """Different ids, ascending, and how often each was seen."""
        self._merge()
        return self._keys, self._counts

    def _append(self, keys_n: UInt64s, counts_n: Counts) -> None:
        self._pending.append((keys_n, counts_n))
        self._num_pending += len(keys_n)
        # Merging only when as much is new as is merged keeps the whole pass linear.
        if self._num_pending > max(_MERGE_AT, len(self._keys)):
            self._merge()
            self._forget()

    def _merge(self) -> None:
        parts = [(self._keys, self._counts), *self._pending]
        keys_n, counts_n = np.concatenate([k for k, _ in parts]), np.concatenate([c for _, c in parts])
        order = np.argsort(keys_n, kind="stable")
        keys_n, counts_n = keys_n[order], counts_n[order]
        self._pending, self._num_pending = [], 0
        if len(keys_n):
            starts = np.flatnonzero(np.append(True, keys_n[1:] != keys_n[:-1]))
            self._keys, self._counts = keys_n[starts], np.add.reduceat(counts_n, starts)

    def _forget(self) -> None:
        if len(self._keys) <= self._limit:
            return
        is_kept = np.isin(self._keys, self._never_forgotten, assume_unique=True)
        others = np.flatnonzero(~is_kept)
        if len(others) > self._limit:
            # Half of the limit, so that the next chunk does not have to forget again.
            place = len(others) - self._limit // 2
            is_kept[others[np.argpartition(self._counts[others], place)[place:]]] = True
            self._keys, self._counts = self._keys[is_kept], self._counts[is_kept]

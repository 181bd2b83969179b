"""KeyIndex: 64-bit keys → rows of a table, built once and asked per batch."""

# n keys in the index, q keys asked for

import numpy as np
from numpy.typing import NDArray

from recmoe.features.id_keys import UInt64s


class KeyIndex:
    """A hash table of sorted keys: the top bits of a key say where to start looking.

    ``pyarrow.compute.index_in`` builds its table anew in every call, 0.3 s for a million ids; this
    one looks 65,536 keys up in a few milliseconds.

    Args:
        keys_n: the key of row 1, row 2, …; of equal ones the first counts.
    """

    def __init__(self, keys_n: UInt64s) -> None:
        order = np.argsort(keys_n, kind="stable")
        # One key more, so that the place behind the last one can be read.
        self._keys = np.append(keys_n[order], np.uint64(0))
        self._rows = np.append(order + 1, 0)
        num_bits = len(keys_n).bit_length() + 1
        self._shift = np.uint64(64 - num_bits)
        firsts = np.arange(1 << num_bits, dtype=np.uint64) << self._shift
        self._starts = np.append(np.searchsorted(keys_n[order], firsts), len(keys_n)).astype(np.int32)

    def rows(self, keys_q: UInt64s) -> NDArray[np.int64]:
        """The row of each key; 0 for a key that is not in the index."""
        rows_q = np.zeros(len(keys_q), np.int64)
        slots_q = (keys_q >> self._shift).astype(np.int64)
        places, ends = self._starts[slots_q], self._starts[slots_q + 1]
        asked = np.flatnonzero(places < ends)
        places, ends = places[asked], ends[asked]
        while len(asked):
            is_hit = self._keys[places] == keys_q[asked]
            rows_q[asked[is_hit]] = self._rows[places[is_hit]]
            places = places + 1
            goes_on = ~is_hit & (places < ends)
            asked, places, ends = asked[goes_on], places[goes_on], ends[goes_on]
        return rows_q

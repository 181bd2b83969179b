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
        # Behind the last key stands one that no search goes past.
        self._keys = np.append(keys_n[order], np.uint64(np.iinfo(np.uint64).max))
        self._rows = np.append(order + 1, 0)
        num_bits = len(keys_n).bit_length() + 1
        self._shift = np.uint64(64 - num_bits)
        firsts = np.arange(1 << num_bits, dtype=np.uint64) << self._shift
        self._starts = np.searchsorted(self._keys[:-1], firsts)

    def rows(self, keys_q: UInt64s) -> NDArray[np.int64]:
        """The row of each key; 0 for a key that is not in the index."""
        places_q = self._starts.take((keys_q >> self._shift).view(np.int64))
        found_q = self._keys.take(places_q)
        rows_q = np.where(found_q == keys_q, self._rows.take(places_q), 0)
        # Keys are sorted: a smaller one may be followed by the one asked for, a greater one may not.
        asked = np.flatnonzero(found_q < keys_q)
        places = places_q[asked]
        while len(asked):
            places = places + 1
            found, wanted = self._keys[places], keys_q[asked]
            is_hit = found == wanted
            rows_q[asked[is_hit]] = self._rows[places[is_hit]]
            goes_on = found < wanted
            asked, places = asked[goes_on], places[goes_on]
        return rows_q

"""KeyIndex: 64-bit keys → rows of a table, built once and asked per batch; JointKeys: those of several tables."""

# n keys in the index, q keys asked for, K tables, B ids of each

from collections.abc import Sequence
from itertools import count

import numpy as np
from numpy.typing import NDArray

from recmoe.features.id_keys import UInt64s, mix64


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

    @property
    def num_repeated(self) -> int:
        """Keys that are there once more."""
        keys_n = self._keys[:-1]
        return int(np.count_nonzero(keys_n[1:] == keys_n[:-1]))


class JointKeys:
    """Ids of K tables in one index, where one search finds the rows of all.

    A salt of its own, key ⊕ salt, keeps a table's keys apart from those of the others. Salts that make keys of two
    tables equal are not taken.

    Args:
        holders: by table, the keys that have a row, and their rows.
    """

    def __init__(self, holders: Sequence[tuple[UInt64s, NDArray[np.int64]]]) -> None:
        num_repeated = None
        for attempt in count():
            salts_K = mix64(np.arange(attempt * len(holders), (attempt + 1) * len(holders), dtype=np.uint64))
            salted = [keys_n ^ salt for (keys_n, _), salt in zip(holders, salts_K, strict=True)]
            index = KeyIndex(np.concatenate(salted))
            if index.num_repeated and num_repeated is None:
                num_repeated = sum(KeyIndex(keys_n).num_repeated for keys_n, _ in holders)
            if index.num_repeated == (num_repeated or 0):
                break
        self._salts_K1 = salts_K[:, np.newaxis]
        self._index = index
        self._rows = np.concatenate([np.zeros(1, np.int64), *(rows_n for _, rows_n in holders)])

    def rows(self, keys_KB: UInt64s) -> NDArray[np.int64]:
        """The row of each key in its table; 0 for a key that has none."""
        places = self._index.rows((keys_KB ^ self._salts_K1).reshape(-1))
        return self._rows.take(places).reshape(keys_KB.shape)

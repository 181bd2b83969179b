"""Who holds the rows of a table of dynamic ids: ranks of all ids, the best of them, and the row of each."""

# n ids, c candidates among them

import numpy as np
from numpy.typing import NDArray

from recmoe.features.id_keys import UInt64s
from recmoe.features.schema import DynamicConfig
from recmoe.features.vocabulary import Rows

Floats = NDArray[np.float32]
Int32s = NDArray[np.int32]


def rank_ids(weights: Floats, seen: Int32s, is_holder: NDArray[np.bool_], config: DynamicConfig) -> UInt64s:
    """Weight and time in the order of the config, then whether an id holds a row, as one number per id."""
    # The bits of floats that are not negative are ordered as the floats are.
    by_weight, by_time = weights.view(np.uint32).astype(np.uint64), seen.astype(np.uint64)
    first, second = (by_weight, by_time) if config.evict == "least_frequent" else (by_time, by_weight)
    ranks: UInt64s = (first << np.uint64(33)) + (second << np.uint64(1)) + is_holder
    return ranks


def best(is_candidate: NDArray[np.bool_], ranks: UInt64s, count: int) -> NDArray[np.bool_]:
    """The candidates of highest rank, among equals the first ones: of all ids, whether each is one; without a sort."""
    places = np.flatnonzero(is_candidate)
    if len(places) <= count:
        return is_candidate
    ranks_c = ranks[places]
    last = np.partition(ranks_c, len(places) - count)[len(places) - count]
    is_best = np.zeros(len(ranks), np.bool_)
    is_best[places[ranks_c > last]] = True
    equals = places[ranks_c == last]
    is_best[equals[: count - int(is_best.sum())]] = True
    return is_best


def assign(rows: Rows, wins: NDArray[np.bool_], ranks: UInt64s, *, capacity: int) -> Rows:
    """Rows of the winners: the one that each has, or the next free one, the best of the newcomers first."""
    assigned = np.where(wins, rows, 0)
    is_free = np.ones(capacity + 1, np.bool_)
    is_free[0] = False
    is_free[assigned] = False
    newcomers = np.flatnonzero(wins & (assigned == 0))
    newcomers = newcomers[np.argsort(~ranks[newcomers], kind="stable")]
    assigned[newcomers] = np.flatnonzero(is_free)[: len(newcomers)]
    return assigned

"""Who holds the rows of a table of dynamic ids: ranks of all ids, the best of them, and the row of each."""

# n ids, c candidates among them, m ids of a period

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recmoe.features.encodings.lookup import Rows
from recmoe.features.id_keys import UInt64s

Floats = NDArray[np.float32]
Int32s = NDArray[np.int32]


@dataclass(frozen=True)
class IdUpdate:
    """What one update did to a table, and what the rows it counted look up afterwards."""

    number: int
    """Updates so far, this one included."""
    rows_used: int
    """Rows that belong to an id."""
    capacity: int
    admitted: int
    """Ids that got a row."""
    evicted: int
    """Ids that lost theirs."""
    waiting: int
    """Ids that are remembered without a row."""
    sightings: int
    """Ids counted, missing ones left out."""
    unknown_share: float
    """Of the sightings: the share of those that look up row 0."""


def rank_ids(
    weights: Floats, seen: Int32s, is_holder: NDArray[np.bool_], *, evict: Literal["least_frequent", "least_recent"]
) -> UInt64s:
    """Weight and time in the order that ``evict`` says, then whether an id holds a row, as one number per id."""
    # The bits of floats that are not negative are ordered as the floats are.
    by_weight, by_time = weights.view(np.uint32).astype(np.uint64), seen.astype(np.uint64)
    first, second = (by_weight, by_time) if evict == "least_frequent" else (by_time, by_weight)
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


def cut(parts: Sequence[pa.Table], *, known_n: UInt64s, num_new: int) -> pa.Table:
    """Counts of different ids: of those that are known and of the most frequent others, in the order of the keys."""
    table = pa.concat_tables(parts)
    keys_m, counts_m = table["key"].to_numpy(), table["count"].to_numpy()
    order = np.argsort(keys_m, kind="stable")
    keys_m, counts_m = keys_m[order], counts_m[order]
    is_known = np.isin(keys_m, known_n, assume_unique=True)
    # As the weights that they begin with, so that equals are the same ones as in the update.
    ranks = counts_m.astype(np.float32).view(np.uint32).astype(np.uint64)
    is_kept = is_known | best(~is_known, ranks, num_new)
    return pa.table({"key": keys_m[is_kept], "count": counts_m[is_kept]})


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

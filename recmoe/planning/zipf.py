"""Zipf: how often popular rows of a table are asked for, at any number of rows."""

# K ranks of popularity that are computed one by one, or stand for a range of ranks

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NUM_EXACT = 1 << 16
"""The most frequent rows, computed one by one; those behind them go in ranges that grow by a hundredth."""


def expected_distinct(
    num_rows: int, num_ids: float, *, exponent: float, first: int = 0, last: int | None = None
) -> float:
    """Different rows among ids drawn with P(rank k) ~ 1 / k^exponent: Σ_k 1 - (1 - p_k)^num_ids.

    Args:
        first, last: count only rows of these ranks of popularity, the most frequent being 0.
    """
    shares_K, counts_K = _shares(num_rows, exponent)
    # log1p and expm1 keep the shares of ten billion rows from being rounded away.
    missed_K = np.log1p(-np.minimum(shares_K, 1.0 - 1e-16)) * num_ids
    return _sum_between(counts_K, -np.expm1(missed_K), first, num_rows if last is None else last)


def share_between(num_rows: int, first: int, last: int, *, exponent: float) -> float:
    """Share of the ids that go to the rows of ranks ``first`` to ``last``, the most frequent being 0."""
    shares_K, counts_K = _shares(num_rows, exponent)
    return _sum_between(counts_K, shares_K, first, last)


def shares_of_first(num_rows: int, num_first: int, *, exponent: float) -> Floats:
    """Shares of the ids of the most frequent rows, one by one; at most ``NUM_EXACT`` of them."""
    shares_K, _ = _shares(num_rows, exponent)
    return shares_K[: min(num_first, NUM_EXACT)]


def _sum_between(counts_K: Floats, values_K: Floats, first: int, last: int) -> float:
    """Sum over ranks of a value that is known for each, or for ranges of them."""
    ends_K = np.concatenate([[0.0], counts_K.cumsum()])
    sums_K = np.concatenate([[0.0], (values_K * counts_K).cumsum()])
    below, above = np.interp([first, last], ends_K, sums_K)
    return float(above - below)


@lru_cache(maxsize=256)
def _shares(num_rows: int, exponent: float) -> tuple[Floats, Floats]:
    """Share of one rank, and how many ranks have it, for single ranks and then for ranges of ranks."""
    exact_K = np.arange(1, min(num_rows, NUM_EXACT) + 1, dtype=np.float64)
    ranks_K, counts_K = exact_K, np.ones_like(exact_K)
    if num_rows > NUM_EXACT:
        num_ranges = int(np.ceil(np.log(num_rows / NUM_EXACT) / np.log(1.01)))
        edges = np.geomspace(NUM_EXACT, num_rows, num_ranges + 1)
        ranks_K = np.concatenate([exact_K, np.sqrt(edges[1:] * edges[:-1])])
        counts_K = np.concatenate([counts_K, np.diff(edges)])
    weights_K = ranks_K**-exponent
    return weights_K / (weights_K * counts_K).sum(), counts_K

"""Zipf: how often popular rows of a table are asked for, at any number of rows."""

# K ranks of popularity that are computed one by one, or stand for a range of ranks

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NUM_EXACT = 1 << 16
"""The most frequent rows, computed one by one; those behind them go in ranges that grow by a hundredth."""


def expected_distinct(num_rows: float, num_ids: float, *, exponent: float) -> float:
    """Different rows among ids drawn with P(rank k) ~ 1 / k^exponent: Σ_k 1 - (1 - p_k)^num_ids."""
    shares_K, counts_K = _shares(int(num_rows), exponent)
    # log1p and expm1 keep the shares of ten billion rows from being rounded away.
    missed_K = np.log1p(-np.minimum(shares_K, 1.0 - 1e-16)) * num_ids
    return float((counts_K * -np.expm1(missed_K)).sum())


def share_of_first(num_rows: float, num_first: float, *, exponent: float) -> float:
    """Share of the ids that go to the ``num_first`` most frequent rows."""
    if num_first >= num_rows:
        return 1.0
    shares_K, counts_K = _shares(int(num_rows), exponent)
    ends_K = counts_K.cumsum()
    return float(
        np.interp(num_first, np.concatenate([[0.0], ends_K]), np.concatenate([[0.0], (shares_K * counts_K).cumsum()]))
    )


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

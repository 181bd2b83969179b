"""NumberLearner: statistics of one numeric feature, chunk by chunk and in parts."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from recmoe.features.statistics import UNKNOWN, Moments, NumericStatistics, Sample, bucket_edges, quantile_cuts
from recmoe.features.transforms import Floats

_logger = logging.getLogger(__name__)

PIECE_ROWS = 1 << 20
"""Rows whose moments are added up together; a process that reads a part of the data reads whole pieces."""


class NumberLearner:
    """What some rows teach about a number.

    Sums of floats depend on their order. So every piece of the data is summed up by itself, in the order of
    its rows, and the pieces in their order, at the end: the result does not depend on who read which.

    Args:
        where: the column in words, for warnings.
        num_buckets: buckets at most; None for a number that has none.
        cuts: between the buckets; by default they are at equal shares of the values.
    """

    def __init__(self, where: str, *, num_buckets: int | None, cuts: Sequence[float] | None = None) -> None:
        self._where = where
        self._num_buckets = num_buckets
        self._cuts = cuts
        self._pieces: dict[int, Moments] = {}
        self._num_too_large = 0
        self._sample = Sample() if num_buckets is not None and cuts is None else None

    def add(self, x_B: Floats, num_too_large: int, *, first_row: int) -> None:
        """Add the numbers of rows, of which the first has a number in the training data.

        Args:
            x_B: NaN where one is missing.
            num_too_large: how many of these are missing because they are too large.
        """
        self._num_too_large += num_too_large
        is_there_B = ~np.isnan(x_B)
        self._pieces.setdefault(first_row // PIECE_ROWS, Moments()).add(x_B[is_there_B])
        if self._sample is not None:
            self._sample.add(x_B[is_there_B], first_row + np.flatnonzero(is_there_B))

    def merge(self, other: "NumberLearner") -> None:
        """Add what other pieces have taught."""
        assert not self._pieces.keys() & other._pieces.keys()
        self._pieces.update(other._pieces)
        self._num_too_large += other._num_too_large
        if self._sample is not None:
            assert other._sample is not None
            self._sample.merge(other._sample)

    def finish(self) -> NumericStatistics:
        """Mean, deviation and bucket edges; warns of numbers that count as missing, and where there are no others."""
        if self._num_too_large:
            _logger.warning(
                "%s holds %d numbers that are infinite or too large for a float; they count as missing: mend them, or "
                "give the feature a clip",
                self._where,
                self._num_too_large,
            )
        moments = Moments()
        for piece in sorted(self._pieces):
            moments.merge(self._pieces[piece])
        if not moments.count:
            _logger.warning(
                "%s holds no number in the training data: it counts as missing in every row; leave it out "
                "unless it comes later",
                self._where,
            )
            return replace(UNKNOWN, edges=() if self._num_buckets is None else (0.0, 1.0))
        return NumericStatistics(mean=moments.mean, std=moments.std, edges=self._edges(moments))

    def _edges(self, moments: Moments) -> tuple[float, ...]:
        if self._num_buckets is None:
            return ()
        cuts = self._cuts
        if cuts is None:
            assert self._sample is not None
            cuts = quantile_cuts(self._sample.finish(), self._num_buckets)
        return bucket_edges(cuts, smallest=moments.smallest, largest=moments.largest)

"""NumberLearner: statistics of one numeric feature, chunk by chunk and in parts."""

import logging
from dataclasses import replace

import numpy as np
import pyarrow as pa

from recmoe.features.numeric import read_and_count
from recmoe.features.schema import GivenBuckets, NumericFeature
from recmoe.features.statistics import UNKNOWN, Moments, NumericStatistics, Sample, bucket_edges, quantile_cuts
from recmoe.features.transforms import signed_log1p

_logger = logging.getLogger(__name__)

PIECE_ROWS = 1 << 20
"""Rows whose moments are added up together; whoever reads a part of the data reads whole pieces."""


class NumberLearner:
    """What some rows teach about a number.

    Sums of floats depend on their order. So every piece of the data is summed up by itself, in the order of
    its rows, and the pieces in their order, at the end: the result does not depend on who read which.
    """

    def __init__(self, name: str, feature: NumericFeature) -> None:
        self._name = name
        self._feature = feature
        self._pieces: dict[int, Moments] = {}
        self._num_too_large = 0
        self._needs_edges = "bucket" in feature.forms or "vector" in feature.forms
        self._sample = Sample() if self._needs_edges and not isinstance(feature.buckets, GivenBuckets) else None

    def add(self, table: pa.Table, *, first_row: int) -> None:
        """Add rows, of which the first has a number in the training data.

        Raises:
            SchemaError: the column is missing or holds no numbers.
        """
        x_B, num_too_large = read_and_count(table, self._name, self._feature)
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
        where = f"column {self._feature.column or self._name!r} of feature {self._name!r}"
        if self._num_too_large:
            _logger.warning(
                "%s holds %d numbers that are infinite or too large for a float; they count as missing: mend them, or "
                "give the feature a clip",
                where,
                self._num_too_large,
            )
        moments = Moments()
        for piece in sorted(self._pieces):
            moments.merge(self._pieces[piece])
        if not moments.count:
            _logger.warning(
                "%s holds no number in the training data: it counts as missing in every row; leave it out "
                "unless it comes later",
                where,
            )
            return replace(UNKNOWN, edges=(0.0, 1.0) if self._needs_edges else ())
        return NumericStatistics(mean=moments.mean, std=moments.std, edges=self._edges(moments))

    def _edges(self, moments: Moments) -> tuple[float, ...]:
        if not self._needs_edges:
            return ()
        buckets = self._feature.buckets
        if isinstance(buckets, GivenBuckets):
            given = np.asarray(buckets.boundaries)
            cuts = (signed_log1p(given) if self._feature.log1p else given).tolist()
        else:
            assert self._sample is not None
            cuts = quantile_cuts(self._sample.finish(), buckets.count)
        return bucket_edges(cuts, smallest=moments.smallest, largest=moments.largest)

"""NumberLearner: statistics of one numeric feature, chunk by chunk and in parts."""

import numpy as np
import pyarrow as pa

from recmoe.errors import DataError
from recmoe.features.numeric import read_number
from recmoe.features.schema import GivenBuckets, NumericFeature
from recmoe.features.statistics import Moments, NumericStatistics, Sample, bucket_edges, quantile_cuts
from recmoe.features.transforms import signed_log1p

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
        self._needs_edges = "bucket" in feature.forms or "vector" in feature.forms
        self._sample = Sample() if self._needs_edges and not isinstance(feature.buckets, GivenBuckets) else None

    def add(self, table: pa.Table, *, first_row: int) -> None:
        """Add rows, of which the first has a number in the training data.

        Raises:
            SchemaError: the column is missing or holds no numbers.
            DataError: a number is infinite.
        """
        x_B = read_number(table, self._name, self._feature, first_row=first_row)
        is_there_B = ~np.isnan(x_B)
        self._pieces.setdefault(first_row // PIECE_ROWS, Moments()).add(x_B[is_there_B])
        if self._sample is not None:
            self._sample.add(x_B[is_there_B], first_row + np.flatnonzero(is_there_B))

    def merge(self, other: "NumberLearner") -> None:
        """Add what other pieces have taught."""
        assert not self._pieces.keys() & other._pieces.keys()
        self._pieces.update(other._pieces)
        if self._sample is not None:
            assert other._sample is not None
            self._sample.merge(other._sample)

    def finish(self) -> NumericStatistics:
        """Mean, deviation and bucket edges.

        Raises:
            DataError: no row holds a number.
        """
        moments = Moments()
        for piece in sorted(self._pieces):
            moments.merge(self._pieces[piece])
        if not moments.count:
            raise DataError(
                f"column {self._feature.column or self._name!r} of feature {self._name!r} holds no number in the "
                "training data; leave the feature out"
            )
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

"""NumericStatistics: mean, spread and bucket edges of one number, learned in one streamed pass."""

# n values of one chunk, N values so far, T buckets

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recmoe.features.id_keys import UInt64s, mix64
from recmoe.features.transforms import Floats

SAMPLE_SIZE = 1 << 17
"""Values kept for quantiles: exact up to here, beyond it a share is off by about 0.0014."""


@dataclass(frozen=True)
class NumericStatistics:
    """What a numeric feature knows of the training data, after fill, clip and log1p."""

    mean: float
    std: float
    """Of the population; 1 where all values are equal, infinite where there are none."""
    edges: tuple[float, ...]
    """T + 1 increasing bucket edges; empty without the forms bucket and vector."""

    @property
    def is_known(self) -> bool:
        """Whether training saw a number at all; if not, every number is missing."""
        return bool(np.isfinite(self.std))


UNKNOWN = NumericStatistics(mean=0.0, std=np.inf, edges=())
"""Of a feature without a number in the training data."""


class Moments:
    """Mean and variance in one pass over chunks: Chan, Golub & LeVeque 1983, https://doi.org/10.1080/00031305.1983.10483115.

    With n new values of mean m and squared deviations s, and N old ones of mean M and S::

        d = m - M
        M ← M + d · n / (N + n)
        S ← S + s + d² · N · n / (N + n)
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self._squares = 0.0
        self.smallest = np.inf
        self.largest = -np.inf

    def add(self, x_n: Floats) -> None:
        """Add finite values."""
        if len(x_n):
            mean = float(x_n.mean())
            squares = float(np.square(x_n - mean).sum())
            self._join(len(x_n), mean, squares, float(x_n.min()), float(x_n.max()))

    def merge(self, other: "Moments") -> None:
        """Add what another one has seen."""
        if not self.count:
            vars(self).update(vars(other))
        elif other.count:
            self._join(other.count, other.mean, other._squares, other.smallest, other.largest)

    def _join(self, count: int, mean: float, squares: float, smallest: float, largest: float) -> None:
        total = self.count + count
        difference = mean - self.mean
        self._squares += squares + difference**2 * self.count * count / total
        self.mean += difference * count / total
        self.count = total
        self.smallest = min(self.smallest, smallest)
        self.largest = max(self.largest, largest)

    @property
    def std(self) -> float:
        """Population standard deviation; 1 where all values are equal."""
        if self.smallest >= self.largest:
            return 1.0
        return float(np.sqrt(self._squares / self.count))


class Sample:
    """A uniform sample of bounded size that depends on the values and their rows alone.

    The value of row i of the data has the tag mix64(i); those with the smallest tags stay. So it is the same
    however the rows are cut into chunks, and whichever process reads them.
    """

    def __init__(self, size: int = SAMPLE_SIZE) -> None:
        self._size = size
        self._values: Floats = np.zeros(0)
        self._tags: UInt64s = np.zeros(0, np.uint64)
        self._largest_tag = np.uint64(np.iinfo(np.uint64).max)

    def add(self, x_n: Floats, rows_n: NDArray[np.int64]) -> None:
        """Add finite values and the rows they stand in."""
        self._append(x_n, mix64(rows_n.view(np.uint64)))

    def merge(self, other: "Sample") -> None:
        """Add the sample of other rows."""
        self._append(other._values, other._tags)

    def _append(self, x_n: Floats, tags_n: UInt64s) -> None:
        stays_n = tags_n <= self._largest_tag
        self._values = np.append(self._values, x_n[stays_n])
        self._tags = np.append(self._tags, tags_n[stays_n])
        if len(self._values) > 2 * self._size:
            self._cut()

    def _cut(self) -> None:
        if len(self._values) > self._size:
            smallest: NDArray[np.int64] = np.argpartition(self._tags, self._size - 1)[: self._size]
            self._values, self._tags = self._values[smallest], self._tags[smallest]
            self._largest_tag = self._tags.max()

    def finish(self) -> Floats:
        """The sample, sorted."""
        self._cut()
        return np.sort(self._values)


def quantile_cuts(sample_n: Floats, num_buckets: int) -> list[float]:
    """Cuts that share the values out evenly over at most ``num_buckets`` buckets.

    A cut lies half-way between two neighbouring values. A value that fills a bucket alone gets one,
    such as the zeros of a count: the others share the rest evenly.

    Example: 0 0 0 0 1 2 3 4 in three buckets has the cuts 0.5 and 2.5.
    """
    values, counts = np.unique(sample_n, return_counts=True)
    if len(values) <= num_buckets:
        return _middles(values, range(len(values) - 1))
    is_heavy = counts * num_buckets >= counts.sum()
    num_light_left, buckets_left = int(counts[~is_heavy].sum()), num_buckets - int(is_heavy.sum())
    share = num_light_left / max(buckets_left, 1)
    places: list[int] = []
    filled = 0
    for place, (count, heavy) in enumerate(zip(counts[:-1].tolist(), is_heavy[:-1].tolist(), strict=True)):
        if len(places) == num_buckets - 1:
            break
        filled += count
        num_light_left -= 0 if heavy else count
        if heavy or filled >= share or (is_heavy[place + 1] and filled >= share / 2):
            places.append(place)
            filled = 0
            if not heavy:
                buckets_left -= 1
                share = num_light_left / max(buckets_left, 1)
    return _middles(values, places)


def _middles(values: Floats, places: Sequence[int] | range) -> list[float]:
    """Half-way between each value at a place and its successor, without the ones that rounding makes equal."""
    middles = [float(values[i] / 2 + values[i + 1] / 2) for i in places]
    return [m for m, i in zip(middles, places, strict=True) if values[i] < m <= values[i + 1]]


def bucket_edges(cuts: Sequence[float], *, smallest: float, largest: float) -> tuple[float, ...]:
    """Cuts with the ends of the training data where these lie beyond; at least two edges."""
    edges = list(cuts)
    if not edges or smallest < edges[0]:
        edges.insert(0, smallest)
    if largest > edges[-1]:
        edges.append(largest)
    if len(edges) == 1:
        edges.append(edges[0] + 1.0)
    return tuple(edges)

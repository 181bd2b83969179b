"""numeric: a numeric feature's column as a value, a bucket and a position."""

# B rows

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recmoe.features.columns import feature_column
from recmoe.features.schema import NumericFeature
from recmoe.features.statistics import NumericStatistics
from recmoe.features.transforms import Floats, as_floats, bucketize, clip, fill, position, signed_log1p

LARGEST = float(np.finfo(np.float32).max)


def read_number(table: pa.Table, name: str, feature: NumericFeature) -> Floats:
    """The column of a numeric feature after fill, clip and log1p; NaN where it is missing and nothing stands for it.

    Infinite numbers, and those that are too large for a float32 after clip and log1p, are missing.

    Raises:
        SchemaError: the column is missing or holds no numbers.
    """
    return read_and_count(table, name, feature)[0]


def read_and_count(table: pa.Table, name: str, feature: NumericFeature) -> tuple[Floats, int]:
    """See ``read_number``; and how many numbers are missing because they are too large."""
    x_B = clip(fill(as_floats(feature_column(table, name, feature)), feature.missing), feature.clip)
    x_B = signed_log1p(x_B) if feature.log1p else x_B
    is_too_large_B = np.abs(x_B) > LARGEST
    num_too_large = int(is_too_large_B.sum())
    return (_filled_again(x_B, is_too_large_B, feature) if num_too_large else x_B), num_too_large


def _filled_again(x_B: Floats, is_missing_B: NDArray[np.bool_], feature: NumericFeature) -> Floats:
    missing = np.full(1, np.nan if feature.missing is None else feature.missing)
    stands_for = clip(missing, feature.clip)
    return np.where(is_missing_B, signed_log1p(stands_for) if feature.log1p else stands_for, x_B)


def value_form(x_B: Floats, feature: NumericFeature, numbers: NumericStatistics) -> NDArray[np.float32]:
    """The number itself, as a z-score if the feature says so; the training mean where it is missing."""
    filled_B = fill(x_B, numbers.mean)
    if feature.zscore:
        filled_B = (filled_B - numbers.mean) / numbers.std
    # A number far from all that training saw must not become infinite by a small deviation.
    return np.clip(filled_B, -LARGEST, LARGEST).astype(np.float32)


def bucket_form(x_B: Floats, numbers: NumericStatistics) -> NDArray[np.int64]:
    """Row of each number's bucket, from 1 on; row 0 where it is missing."""
    return np.where(np.isnan(x_B), 0, bucketize(x_B, numbers.edges) + 1)


def vector_form(x_B: Floats, numbers: NumericStatistics) -> NDArray[np.float32]:
    """Position of each number among the edges, in [0, num_buckets]; that of the training mean where it is missing."""
    return position(fill(x_B, numbers.mean), numbers.edges).astype(np.float32)

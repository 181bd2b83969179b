"""numeric: a numeric feature's column as a value, a bucket and a position."""

# B rows

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recmoe.errors import DataError
from recmoe.features.columns import feature_column
from recmoe.features.schema import NumericFeature
from recmoe.features.statistics import NumericStatistics
from recmoe.features.transforms import Floats, as_floats, bucketize, clip, fill, position, signed_log1p


def read_number(table: pa.Table, name: str, feature: NumericFeature, *, first_row: int = 0) -> Floats:
    """The column of a numeric feature after fill, clip and log1p; NaN where it is missing and nothing stands for it.

    Raises:
        SchemaError: the column is missing or holds no numbers.
        DataError: a number is infinite.
    """
    column = feature_column(table, name, feature)
    raw_B = as_floats(column)
    x_B = clip(fill(raw_B, feature.missing), feature.clip)
    is_infinite_B = np.isinf(x_B)
    if is_infinite_B.any():
        raise _not_finite(name, feature, raw_B, int(is_infinite_B.argmax()), first_row)
    return signed_log1p(x_B) if feature.log1p else x_B


def value_form(x_B: Floats, name: str, feature: NumericFeature, numbers: NumericStatistics) -> NDArray[np.float32]:
    """The number itself, as a z-score if the feature says so; the training mean where it is missing."""
    filled_B = fill(x_B, numbers.mean)
    if feature.zscore:
        filled_B = (filled_B - numbers.mean) / numbers.std
    with np.errstate(over="ignore"):
        value_B = filled_B.astype(np.float32)
    if not np.isfinite(value_B).all():
        raise _not_finite(name, feature, x_B, int((~np.isfinite(value_B)).argmax()), 0)
    return value_B


def bucket_form(x_B: Floats, numbers: NumericStatistics) -> NDArray[np.int64]:
    """Row of each number's bucket, from 1 on; row 0 where it is missing."""
    return np.where(np.isnan(x_B), 0, bucketize(x_B, numbers.edges) + 1)


def vector_form(x_B: Floats, numbers: NumericStatistics) -> NDArray[np.float32]:
    """Position of each number among the edges, in [0, num_buckets]; that of the training mean where it is missing."""
    return position(fill(x_B, numbers.mean), numbers.edges).astype(np.float32)


def _not_finite(name: str, feature: NumericFeature, x_B: Floats, row: int, first_row: int) -> DataError:
    return DataError(
        f"column {feature.column or name!r} of feature {name!r} holds {x_B[row]:g} in row {first_row + row}, "
        "which is too large for a float; mend it, or give the feature a clip"
    )

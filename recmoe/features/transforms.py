"""transforms: pure functions of one numeric column."""

# n values

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LARGEST = float(np.finfo(np.float32).max)
"""Numbers beyond it are missing: a model reads float32."""


def is_number_type(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type are numbers; all-null columns are, booleans are 0 and 1."""
    types = pa.types
    if types.is_dictionary(kind):
        return is_number_type(kind.value_type)
    return bool(
        types.is_null(kind)
        or types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_decimal(kind)
    )


def as_floats(column: pa.ChunkedArray) -> Floats:
    """A column of numbers as float64, NaN where null."""
    parts: list[Floats] = []
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            chunk = chunk.dictionary_decode()
        if pa.types.is_null(chunk.type):
            parts.append(np.full(len(chunk), np.nan))
        else:
            # Integers beyond 2^53 lose their last digits, as in any float.
            floats = chunk.cast(pa.float64(), safe=False)
            parts.append((floats.fill_null(np.nan) if floats.null_count else floats).to_numpy())
    return parts[0] if len(parts) == 1 else np.concatenate([*parts, np.zeros(0)])


def fill(x_n: Floats, missing: float | None) -> Floats:
    """NaN replaced by a number; None leaves it."""
    return x_n if missing is None else np.where(np.isnan(x_n), missing, x_n)


def clip(x_n: Floats, limits: tuple[float, float] | None) -> Floats:
    """Values held between two limits; NaN stays NaN."""
    return x_n if limits is None else np.clip(x_n, *limits)


def signed_log1p(x_n: Floats) -> Floats:
    """sign(x) · log(1 + |x|)."""
    return np.copysign(np.log1p(np.abs(x_n)), x_n)


def bucketize(x_n: Floats, edges: Sequence[float] | Floats) -> NDArray[np.int64]:
    """Bucket of each value, from 0 to len(edges) - 2; bucket i is [edges[i], edges[i + 1]).

    Values below the first edge fall into the first bucket, those from the last edge on into the
    last. NaN falls into the last one too: the caller knows where NaN is.
    """
    assert len(edges) >= 2
    return np.searchsorted(np.asarray(edges[1:-1]), x_n, side="right")


def position(x_n: Floats, edges: Sequence[float] | Floats) -> Floats:
    """Bucket of each value plus the share of the bucket it has crossed, in [0, len(edges) - 1].

    With edges b the piecewise-linear encoding is e_t = clip(position - t, 0, 1) (Gorishniy et al.,
    NeurIPS 2022, https://arxiv.org/abs/2203.05556, equation 1), but for the ends: values beyond the
    first and the last edge are held there. NaN stays NaN.
    """
    edges_T1 = np.asarray(edges)
    bucket_n = bucketize(x_n, edges)
    low_n, high_n = edges_T1[bucket_n], edges_T1[bucket_n + 1]
    position_n: Floats = bucket_n + np.clip((x_n - low_n) / (high_n - low_n), 0.0, 1.0)
    return position_n

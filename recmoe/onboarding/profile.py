"""LogProfile: what is known of the columns of a log after reading it once, in bounded memory."""

# C columns, S sampled rows

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recmoe.data.parquet import ParquetStream

SKETCH_SIZE = 16_384
CHUNK_ROWS = 65_536
SAMPLE_ROWS = 200_000
RUN_ROWS = 1024
# A column that is filled by chance only where a label is 1 must be less likely than this.
LOG_CHANCE = np.log(1e-5)


@dataclass(frozen=True)
class ColumnProfile:
    """One column of the log."""

    name: str
    type: pa.DataType
    num_rows: int
    num_nulls: int
    num_distinct: int
    """Exact up to ``SKETCH_SIZE``, beyond that within one percent or so; values of the lists, for lists."""
    low: float | None
    """Smallest number, None where the column holds none."""
    high: float | None
    num_positive: int
    """Rows that are neither null, zero nor an empty list."""
    is_binary: bool
    """Nothing but 0, 1 and null, and both 0 and 1 occur."""

    @property
    def rate(self) -> float:
        """Share of positives among the rows that are not null."""
        return self.num_positive / max(self.num_rows - self.num_nulls, 1)


@dataclass(frozen=True)
class LogProfile:
    """All columns, how they hang together, and a sample of rows.

    The sample is made of runs of neighbouring rows from all parts of the log, so that lists and
    sessions are whole in it.
    """

    num_rows: int
    columns: Mapping[str, ColumnProfile]
    sample: pa.Table
    num_positive_outside: Mapping[tuple[str, str], int]
    """(column, binary column): rows where the first is filled although the second is not 1."""

    def is_only_within(self, column: str, binary: str) -> bool:
        """Whether a column is filled only where a binary one is 1, and not by chance."""
        inner, outer = self.columns[column], self.columns[binary]
        if column == binary or not outer.is_binary or self.num_positive_outside[column, binary]:
            return False
        share = outer.num_positive / outer.num_rows
        return inner.num_positive >= 5 and inner.num_positive * np.log(share) < LOG_CHANCE

    def is_constant_within(self, column: str, group: str) -> bool:
        """Whether rows of one group nearly always have the same value, as far as the sample tells."""
        if column == group:
            return True
        groups, values = codes(self.sample[group]), codes(self.sample[column])
        _, first, place = np.unique(groups, return_index=True, return_inverse=True)
        is_repeat = np.ones(groups.size, dtype=bool)
        is_repeat[first] = False
        if is_repeat.sum() < 50:
            return False
        share_different = (values[first][place] != values)[is_repeat].mean()
        # Rare values are nearly always equal, by chance alone.
        chance = 1.0 - float(np.square(np.unique(values, return_counts=True)[1] / values.size).sum())
        return bool(share_different < min(0.001, 0.1 * chance)) or chance == 0.0


def profile_log(stream: ParquetStream) -> LogProfile:
    """Read a log once."""
    schema = stream.arrow_schema
    sketches = {name: _Sketch() for name in schema.names}
    num_nulls = dict.fromkeys(schema.names, 0)
    lows: dict[str, float] = {}
    highs: dict[str, float] = {}
    can_be_binary = {field.name: is_number(field.type) for field in schema}
    num_positive_C = np.zeros(len(schema.names), dtype=np.int64)
    inside_CC = np.zeros((len(schema.names), len(schema.names)), dtype=np.int64)
    samples: list[pa.Table] = []
    num_kept = max(1, RUN_ROWS * SAMPLE_ROWS // max(stream.num_rows, SAMPLE_ROWS))
    for chunk in stream.chunks(batch_size=CHUNK_ROWS):
        samples.append(chunk.filter(pa.array(np.arange(chunk.num_rows) % RUN_ROWS < num_kept)))
        is_positive_NC = np.zeros((chunk.num_rows, len(schema.names)), dtype=np.float32)
        for place, name in enumerate(schema.names):
            column = chunk[name].combine_chunks()
            num_nulls[name] += column.null_count
            sketches[name].add(column)
            is_positive_NC[:, place] = positives(column)
            if is_number(column.type) and column.null_count < len(column):
                numbers = column.cast(pa.float64())
                ends = pc.min_max(numbers)
                lows[name] = min(lows.get(name, np.inf), ends["min"].as_py())
                highs[name] = max(highs.get(name, -np.inf), ends["max"].as_py())
                can_be_binary[name] = can_be_binary[name] and _is_zero_one(numbers)
        num_positive_C += is_positive_NC.sum(axis=0, dtype=np.float64).astype(np.int64)
        inside_CC += np.rint(is_positive_NC.T @ is_positive_NC).astype(np.int64)
    columns = {
        name: ColumnProfile(
            name=name,
            type=schema.field(name).type,
            num_rows=stream.num_rows,
            num_nulls=num_nulls[name],
            num_distinct=sketches[name].num_distinct,
            low=lows.get(name),
            high=highs.get(name),
            num_positive=int(num_positive_C[place]),
            is_binary=can_be_binary[name] and (lows.get(name), highs.get(name)) == (0.0, 1.0),
        )
        for place, name in enumerate(schema.names)
    }
    outside = {
        (a, b): int(num_positive_C[i] - inside_CC[i, j])
        for i, a in enumerate(schema.names)
        for j, b in enumerate(schema.names)
        if columns[b].is_binary
    }
    return LogProfile(stream.num_rows, columns, pa.concat_tables(samples), outside)


def is_number(type_: pa.DataType) -> bool:
    """Integers, floats, decimals and booleans."""
    return bool(
        pa.types.is_integer(type_)
        or pa.types.is_floating(type_)
        or pa.types.is_decimal(type_)
        or pa.types.is_boolean(type_)
    )


def is_text(type_: pa.DataType) -> bool:
    """Strings, plain or as a dictionary."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def is_list(type_: pa.DataType) -> bool:
    """Lists of any length."""
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


def is_time(type_: pa.DataType) -> bool:
    """Dates and timestamps."""
    return bool(pa.types.is_timestamp(type_) or pa.types.is_date(type_))


def times_of_text(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Times written as 2025-06-01 12:30:00 or alike; pa.ArrowInvalid where a text is none."""
    return texts.cast(pa.string()).cast(pa.timestamp("us"))


def codes(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """A number per distinct value; -1 for null."""
    whole = column.combine_chunks()
    if is_list(whole.type):
        texts = pc.binary_join(whole.cast(pa.list_(pa.string())), "\x1f")
        return codes(pa.chunked_array([texts]))
    if not pa.types.is_dictionary(whole.type):
        whole = pc.dictionary_encode(whole)
    return np.asarray(pc.fill_null(whole.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False))


def positives(column: pa.Array) -> npt.NDArray[np.bool_]:
    """Which rows are neither null, NaN, zero nor an empty list."""
    if is_number(column.type):
        return np.asarray(np.nan_to_num(column.cast(pa.float64()).to_numpy(zero_copy_only=False)) != 0)
    is_filled: npt.NDArray[np.bool_] = np.array(pc.is_valid(column).to_numpy(zero_copy_only=False), dtype=bool)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        is_filled &= pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False) > 0
    return is_filled


def hashes(values: pa.Array) -> npt.NDArray[np.uint64]:
    """64-bit hashes, equal in every process; null has one too."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if is_time(values.type):
        values = values.cast(pa.date64()).cast(pa.int64()) if pa.types.is_date(values.type) else values.cast(pa.int64())
    plain = is_number(values.type) and not pa.types.is_decimal(values.type) and not values.null_count
    array = values.to_numpy(zero_copy_only=False) if plain else pc.fill_null(values.cast(pa.string()), "\x00")
    return np.asarray(pd.util.hash_array(np.asarray(array, dtype=None if plain else object), categorize=not plain))


class _Sketch:
    """Number of distinct values from the smallest hashes (k minimum values, Bar-Yossef et al. 2002)."""

    def __init__(self) -> None:
        self._smallest = np.empty(0, dtype=np.uint64)

    def add(self, column: pa.Array) -> None:
        if is_list(column.type):
            column = column.flatten()
        if not (is_number(column.type) or is_text(column.type) or is_time(column.type)):
            return
        values = pc.drop_null(column.dictionary if pa.types.is_dictionary(column.type) else pc.unique(column))
        self._smallest = np.unique(np.concatenate([self._smallest, hashes(values)]))[:SKETCH_SIZE]

    @property
    def num_distinct(self) -> int:
        if self._smallest.size < SKETCH_SIZE:
            return int(self._smallest.size)
        return round((SKETCH_SIZE - 1) / (float(self._smallest[-1]) / 2.0**64))


def _is_zero_one(numbers: pa.Array) -> bool:
    return set(pc.unique(pc.drop_null(numbers)).to_pylist()) <= {0.0, 1.0}

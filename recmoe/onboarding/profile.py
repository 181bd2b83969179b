"""LogProfile: what is known of the columns of a log after reading it once, in bounded memory."""

# C columns, S sampled rows

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recmoe.data.parquet import ParquetStream
from recmoe.onboarding.values import NO_AND_YES, codes, hashes, is_list, is_number, is_text, is_time, numbers, positives

SKETCH_SIZE = 16_384
CHUNK_ROWS = 65_536
SAMPLE_ROWS = 200_000
RUN_ROWS = 1024
MAX_TALLY = 40
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
    """Smallest finite number, None where the column holds none."""
    high: float | None
    num_infinite: int
    num_positive: int
    """Rows that are neither null, zero, "no" nor an empty list."""
    tally: Mapping[float | str, int] | None
    """Rows by number or by text without the blanks around it; None where there are more than ``MAX_TALLY`` values."""
    is_binary: bool
    """A no and a yes and nothing else, and both occur: 0 and 1, -1 and 1, N and Y, false and true."""
    positive: float | str | None
    """The value that means yes; None where it is 1 or true, which every label column may hold."""

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
        # Rows without a group are not one group.
        rows = self.sample.select([group, column]).filter(self.sample[group].is_valid())
        groups, values = codes(rows[group]), codes(rows[column])
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
    names = stream.arrow_schema.names
    seen = {name: _Seen() for name in names}
    num_positive_C = np.zeros(len(names), dtype=np.int64)
    inside_CC = np.zeros((len(names), len(names)), dtype=np.int64)
    samples: list[pa.Table] = []
    num_kept = max(1, RUN_ROWS * SAMPLE_ROWS // max(stream.num_rows, SAMPLE_ROWS))
    for raw in stream.chunks(batch_size=CHUNK_ROWS):
        chunk = _without_halves(raw)
        samples.append(chunk.filter(pa.array(np.arange(chunk.num_rows) % RUN_ROWS < num_kept)))
        is_positive_NC = np.zeros((chunk.num_rows, len(names)), dtype=np.float32)
        for place, name in enumerate(names):
            column = chunk[name].combine_chunks()
            seen[name].add(column)
            is_positive_NC[:, place] = positives(column)
        num_positive_C += is_positive_NC.sum(axis=0, dtype=np.float64).astype(np.int64)
        inside_CC += np.rint(is_positive_NC.T @ is_positive_NC).astype(np.int64)
    columns = {
        name: seen[name].profile(
            stream.arrow_schema.field(name), num_rows=stream.num_rows, num_positive=int(num_positive_C[place])
        )
        for place, name in enumerate(names)
    }
    outside = {
        (a, b): int(num_positive_C[i] - inside_CC[i, j])
        for i, a in enumerate(names)
        for j, b in enumerate(names)
        if columns[b].is_binary
    }
    return LogProfile(stream.num_rows, columns, pa.concat_tables(samples), outside)


def _without_halves(chunk: pa.Table) -> pa.Table:
    """Arrow counts and compares no float16."""
    for place, field in enumerate(chunk.schema):
        if pa.types.is_float16(field.type):
            chunk = chunk.set_column(place, field.name, chunk[field.name].cast(pa.float32()))
    return chunk


class _Seen:
    """What was seen of one column so far."""

    def __init__(self) -> None:
        self._sketch = _Sketch()
        self._num_nulls = 0
        self._num_infinite = 0
        self._low, self._high = np.inf, -np.inf
        self._tally: dict[float | str, int] | None = {}

    def add(self, column: pa.Array) -> None:
        """Take the next rows in."""
        self._num_nulls += column.null_count
        self._sketch.add(column)
        if is_number(column.type):
            x_N = numbers(column)
            self._num_infinite += int(np.isinf(x_N).sum())
            finite_N = x_N[np.isfinite(x_N)]
            if finite_N.size:
                self._low = min(self._low, float(finite_N.min()))
                self._high = max(self._high, float(finite_N.max()))
            self._count(*np.unique(x_N[~np.isnan(x_N)], return_counts=True))
        elif is_text(column.type):
            counts = pc.value_counts(pc.drop_null(pc.utf8_trim_whitespace(column.cast(pa.large_string()))))
            self._count(counts.field("values"), counts.field("counts"))
        else:
            self._tally = None

    def _count(self, values: npt.NDArray[np.float64] | pa.Array, counts: npt.NDArray[np.int64] | pa.Array) -> None:
        if self._tally is None or len(values) > MAX_TALLY:
            self._tally = None
            return
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self._tally[value] = self._tally.get(value, 0) + count
        if len(self._tally) > MAX_TALLY:
            self._tally = None

    def profile(self, field: pa.Field, *, num_rows: int, num_positive: int) -> ColumnProfile:
        """What is known of the column after the last row."""
        has_numbers = self._high >= self._low
        is_binary, positive = _binary(self._tally)
        return ColumnProfile(
            name=field.name,
            type=field.type,
            num_rows=num_rows,
            num_nulls=self._num_nulls,
            num_distinct=self._sketch.num_distinct,
            low=self._low if has_numbers else None,
            high=self._high if has_numbers else None,
            num_infinite=self._num_infinite,
            num_positive=num_positive,
            tally=self._tally,
            is_binary=is_binary,
            positive=positive,
        )


def _binary(tally: Mapping[float | str, int] | None) -> tuple[bool, float | str | None]:
    """Whether there is a no and a yes and nothing else, and what says yes if it is neither 1 nor true."""
    if not tally:
        return False, None
    by_word = {f"{value:g}" if isinstance(value, float) else value.lower(): value for value in tally}
    has_blanks = by_word.pop("", None) is not None
    for no, yes in NO_AND_YES:
        if set(by_word) == {no, yes} and len(tally) == 2 + has_blanks:
            is_plain = (no, yes) in (("0", "1"), ("false", "true")) and not has_blanks
            return True, None if is_plain else by_word[yes]
    return False, None


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

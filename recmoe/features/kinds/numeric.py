"""The kind numeric: a number as a value, a bucket and a position."""

# B rows

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from recmoe.config import Config
from recmoe.features.encodings.lookup import RowLookup
from recmoe.features.id_counts import IdCounts
from recmoe.features.kinds.numeric_columns import NumberColumn, NumberColumns
from recmoe.features.kinds.parts import EncodedPart, IdTable, LayoutPart, RawPart
from recmoe.features.layout import DenseColumn, Side, SparseKey
from recmoe.features.number_learner import NumberLearner
from recmoe.features.raw_column import RawColumn
from recmoe.features.statistics import NumericStatistics
from recmoe.features.transforms import LARGEST, Floats, as_floats, bucketize, clip, fill, position, signed_log1p


class QuantileBuckets(Config):
    """Boundaries at equal shares of the training rows."""

    kind: Literal["quantile"] = "quantile"
    count: PositiveInt = 40
    """Buckets at most; equal boundaries are merged."""


class GivenBuckets(Config):
    """Boundaries from the config, in the units of the raw column."""

    kind: Literal["given"] = "given"
    boundaries: tuple[float, ...]
    """Strictly increasing."""

    @property
    def count(self) -> int:
        """Buckets, those beyond the first and the last boundary included."""
        return len(self.boundaries) + 1


BucketsConfig = Annotated[QuantileBuckets | GivenBuckets, Field(discriminator="kind")]


class NumericFeature(Config):
    """A number, in one or several forms."""

    kind: Literal["numeric"] = "numeric"
    column: str | None = None
    """Column of the log; the feature's name by default."""
    side: Side = "item"
    """Who it describes."""
    missing: float | None = None
    """Number that stands for null and NaN; by default the training mean as a value, bucket row 0 as an id."""
    clip: tuple[float, float] | None = None
    """Smallest and largest value let through, before anything else."""
    log1p: bool = False
    """Compress: sign(x) · log(1 + |x|)."""
    zscore: bool = True
    """Subtract the training mean, divide by the training standard deviation."""
    forms: tuple[Literal["value", "bucket", "vector"], ...] = ("value",)
    """As the number itself, the id of its bucket, a learned vector (piecewise-linear encoding), or several."""
    buckets: BucketsConfig = QuantileBuckets()
    """Boundaries for the forms ``bucket`` and ``vector``."""
    width: PositiveInt | None = None
    """Floats of the bucket's table row and of the vector; the schema's width by default."""

    def problems(self) -> Iterator[tuple[str, str]]:
        if not self.forms:
            yield "forms", "at least one of value, bucket, vector is needed"
        if len(set(self.forms)) != len(self.forms):
            yield "forms", "the same form is given twice"
        if self.missing is not None and not math.isfinite(self.missing):
            yield "missing", f"the number that stands for null must be finite, got {self.missing}"
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            yield "clip", f"the smallest value must be below the largest, got {list(self.clip)}"
        if isinstance(self.buckets, GivenBuckets):
            boundaries = self.buckets.boundaries
            if not boundaries or list(boundaries) != sorted(set(boundaries)):
                yield "buckets.boundaries", f"boundaries must increase strictly, got {list(boundaries)}"
            elif not all(map(math.isfinite, boundaries)):
                yield "buckets.boundaries", f"boundaries must be finite, got {list(boundaries)}"

    @property
    def needs_edges(self) -> bool:
        """Whether one of its forms has buckets."""
        return "bucket" in self.forms or "vector" in self.forms

    def raw_columns(self, name: str) -> tuple[RawColumn, ...]:
        return (RawColumn(self.column or name, "number"),)

    def tables(self, name: str, *, width: int) -> tuple[()]:
        return ()

    def widths(self) -> Mapping[str, int | None]:
        return {"width": self.width} if "bucket" in self.forms else {}

    def layout(
        self,
        name: str,
        *,
        width: int,
        tables: Mapping[str, IdTable],
        numbers: NumericStatistics | None,
    ) -> LayoutPart:
        assert numbers is not None
        width, num_buckets = self.width or width, len(numbers.edges) - 1
        keys, dense, key = [], [], bucket_key(name)
        if "value" in self.forms:
            dense.append(DenseColumn(name, name, self.side, "value", meaning=self._meaning("value", numbers)))
        if "vector" in self.forms:
            meaning = self._meaning("position", numbers)
            column = position_column(name)
            dense.append(DenseColumn(column, name, self.side, "position", num_buckets, width, meaning))
        if "bucket" in self.forms:
            keys.append(SparseKey(name=key, feature=name, side=self.side, table=key, width=width))
        num_rows = {key: num_buckets + 1} if keys else {}
        return LayoutPart(keys=tuple(keys), dense=tuple(dense), num_rows=num_rows)

    def build(
        self,
        name: str,
        *,
        lookups: Mapping[str, RowLookup],
        numbers: NumericStatistics | None,
    ) -> "NumericReader":
        assert numbers is not None
        return NumericReader(name=name, feature=self, numbers=numbers)

    def number_learner(self, name: str) -> NumberLearner:
        given = None
        if isinstance(self.buckets, GivenBuckets) and self.needs_edges:
            boundaries = np.asarray(self.buckets.boundaries)
            given = (signed_log1p(boundaries) if self.log1p else boundaries).tolist()
        return NumberLearner(
            self.raw_columns(name)[0].where(name),
            num_buckets=self.buckets.count if self.needs_edges else None,
            cuts=given,
        )

    def learn(self, rows: pa.Table, name: str, *, first_row: int, ids: IdCounts, numbers: NumberLearner | None) -> None:
        assert numbers is not None
        numbers.add(*read_and_count(rows, name, self), first_row=first_row)

    def keeps_statistics(self, before: object) -> bool:
        if not isinstance(before, NumericFeature):
            return False
        is_same = (before.missing, before.clip, before.log1p) == (self.missing, self.clip, self.log1p)
        return is_same and (not self.needs_edges or (before.needs_edges and before.buckets == self.buckets))

    def _meaning(self, form: Literal["value", "position"], numbers: NumericStatistics) -> Hashable:
        scale = (numbers.mean, numbers.std if self.zscore else None) if form == "value" else numbers.edges
        return (form, self.zscore, self.missing, self.clip, self.log1p, scale)

    def read_raw(self, rows: pa.Table, name: str) -> RawPart:
        return RawPart(numbers={name: np.asarray(read_number(rows, name, self), dtype=np.float64)})

    def planned_numbers(self) -> NumericStatistics:
        return NumericStatistics(mean=0.0, std=1.0, edges=tuple(map(float, range(self.buckets.count + 1))))

    def planned_ids(self, name: str, *, per_row: float | None) -> dict[str, float]:
        return {bucket_key(name): 1.0} if "bucket" in self.forms else {}


class NumericReader:
    """A number per row → floats, positions and rows of buckets.

    Args:
        name: of the feature.
        feature: how the number is read, and its forms.
        numbers: its statistics.
    """

    def __init__(self, *, name: str, feature: NumericFeature, numbers: NumericStatistics) -> None:
        self._name = name
        self._feature = feature
        self._numbers = numbers

    def encode(self, rows: pa.Table) -> EncodedPart:
        x_B = read_number(rows, self._name, self._feature)
        if not self._numbers.is_known:
            x_B = np.full_like(x_B, np.nan)
        dense, ids = {}, {}
        if "value" in self._feature.forms:
            dense[self._name] = value_form(x_B, self._feature, self._numbers)
        if "vector" in self._feature.forms:
            dense[position_column(self._name)] = vector_form(x_B, self._numbers)
        if "bucket" in self._feature.forms:
            ids[bucket_key(self._name)] = bucket_form(x_B, self._numbers), None
        return EncodedPart(ids=ids, dense=dense)

    def unknown_counts(self, rows: pa.Table, num_at_zero: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        # Row 0 of the buckets is "missing": a number is never unknown.
        return {}

    @property
    def kin(self) -> Hashable:
        return NumericReader

    @staticmethod
    def together(readers: "Sequence[NumericReader]") -> NumberColumns:
        return NumberColumns([reader._column() for reader in readers])

    def _column(self) -> NumberColumn:
        feature, forms = self._feature, self._feature.forms
        return NumberColumn(
            feature=self._name,
            column=feature.raw_columns(self._name)[0].name,
            missing=feature.missing,
            clip=feature.clip,
            log1p=feature.log1p,
            zscore=feature.zscore,
            numbers=self._numbers,
            value=self._name if "value" in forms else None,
            position=position_column(self._name) if "vector" in forms else None,
            bucket=bucket_key(self._name) if "bucket" in forms else None,
        )


def bucket_key(feature: str) -> str:
    """Name of the key, and of the table, of a number's buckets."""
    return f"{feature}#bucket"


def position_column(feature: str) -> str:
    """Name of the dense column of a number's position among its edges."""
    return f"{feature}#position"


def read_number(table: pa.Table, name: str, feature: NumericFeature) -> Floats:
    """The column of a numeric feature after fill, clip and log1p; NaN where it is missing and nothing stands for it.

    Infinite numbers, and those that are too large for a float32 after clip and log1p, are missing.

    Raises:
        SchemaError: the column is missing or holds no numbers.
    """
    return read_and_count(table, name, feature)[0]


def read_and_count(table: pa.Table, name: str, feature: NumericFeature) -> tuple[Floats, int]:
    """See ``read_number``; and how many numbers are missing because they are too large."""
    x_B = clip(fill(as_floats(feature.raw_columns(name)[0].read(table, feature=name)), feature.missing), feature.clip)
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

"""FeatureSchema: which columns of a log are features, of which kind, on which side."""

import math
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from recmoe.config import Config
from recmoe.features.layout import Side


class VocabularyConfig(Config):
    """Ids seen in training, most frequent first; any other id is row 0."""

    kind: Literal["vocabulary"] = "vocabulary"
    min_count: PositiveInt = 1
    """Occurrences an id needs to get a row of its own."""
    max_size: PositiveInt = 1_000_000
    """Ids kept, the most frequent first."""


class HashConfig(Config):
    """Ids hashed into buckets: nothing to learn or to store, some ids share a row."""

    kind: Literal["hash"] = "hash"
    num_buckets: PositiveInt = 100_000
    """Rows beside row 0."""


class IndexConfig(Config):
    """Ids that are row numbers already: 0 … num_ids - 1."""

    kind: Literal["index"] = "index"
    num_ids: PositiveInt
    """Number of different ids; the largest is one less."""
    out_of_range: Literal["error", "unknown"] = "error"
    """What an id beyond the table does: stop with an error, or look up row 0."""


class DynamicConfig(Config):
    """Ids that come and go: a fixed number of rows, each of which belongs to one id; any other id is row 0.

    Rows change their owners when the encoder is learnt and when it grows (``--warm-start``, ``recmoe daily``), never
    in between.
    """

    kind: Literal["dynamic"] = "dynamic"
    capacity: PositiveInt = 100_000
    """Rows beside row 0, for ever."""
    admit_after: PositiveInt = 2
    """Occurrences an id needs to get a row, over however many updates."""
    evict: Literal["least_frequent", "least_recent"] = "least_frequent"
    """Who gives up a row when there are more such ids than rows."""
    half_life: PositiveFloat = 7.0
    """Updates after which an occurrence counts half as much for ``least_frequent``."""
    forget_after: PositiveInt | None = None
    """Updates without an occurrence after which an id loses its row in any case; never by default."""


EncodingConfig = Annotated[VocabularyConfig | HashConfig | IndexConfig | DynamicConfig, Field(discriminator="kind")]


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


BucketsConfig = Annotated[QuantileBuckets | GivenBuckets, Field(discriminator="kind")]


class IdFeature(Config):
    """One id per row."""

    kind: Literal["id"] = "id"
    column: str | None = None
    """Column of the log; the feature's name by default."""
    side: Side = "item"
    """Who it describes: a request carries user and context once, item per candidate."""
    encoding: EncodingConfig = VocabularyConfig()
    table: str | None = None
    """Table to look up; features that name the same table share it. The feature's name by default."""
    width: PositiveInt | None = None
    """Floats per row of the table; the schema's width by default."""
    missing: str | int | None = None
    """Id that stands for null; row 0 by default."""


class IdListFeature(Config):
    """Any number of ids per row, pooled into one vector."""

    kind: Literal["id_list"] = "id_list"
    column: str | None = None
    """Column of the log; the feature's name by default."""
    side: Side = "item"
    """Who it describes."""
    encoding: EncodingConfig = VocabularyConfig()
    table: str | None = None
    """Table to look up; features that name the same table share it."""
    width: PositiveInt | None = None
    """Floats per row of the table; the schema's width by default."""
    pooling: Literal["sum", "mean"] = "mean"
    separator: str | None = None
    """Splits a string column into ids, such as "|" in "a|b|c"; columns that hold lists need none."""
    max_length: PositiveInt | None = None
    """Ids kept per row, the last ones; all by default."""


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
    """As the number itself, the id of its bucket, a learnt vector (piecewise-linear encoding), or several."""
    buckets: BucketsConfig = QuantileBuckets()
    """Boundaries for the forms ``bucket`` and ``vector``."""
    width: PositiveInt | None = None
    """Floats of the bucket's table row and of the vector; the schema's width by default."""


FeatureConfig = Annotated[IdFeature | IdListFeature | NumericFeature, Field(discriminator="kind")]


class FeatureSchema(Config):
    """All features of a model, and the columns that give rows their place."""

    width: PositiveInt = 16
    """Floats per table row where a feature does not say."""
    features: dict[str, FeatureConfig]
    group: str | None = None
    """Column whose value joins the rows of one list (request, session or user), for metrics per list. Rows where it is
    null are in no list: metrics per list leave them out, and each is resampled by itself for the intervals."""
    item: str | None = None
    """Column that identifies a candidate in requests and responses."""
    seed: NonNegativeInt = 0
    """Seed of the hash of ids."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """What does not fit together, as (key path, message)."""
        if not self.features:
            yield "features", "at least one feature is needed"
        first_of: dict[str, str] = {}
        for name, feature in self.features.items():
            path = f"features.{name}"
            if isinstance(feature, NumericFeature):
                yield from _numeric_problems(path, feature)
                continue
            table = feature.table or name
            if "#" in table:
                yield f"{path}.table", f"table {table} may not contain #, which marks the buckets of numbers"
            if isinstance(feature, IdListFeature) and feature.separator == "":
                yield f"{path}.separator", "a separator needs a character; columns that hold lists need no separator"
            owner = first_of.setdefault(table, name)
            first = self.features[owner]
            assert not isinstance(first, NumericFeature)
            if feature.encoding != first.encoding:
                yield f"{path}.encoding", f"shares table {table} with {owner}, so its encoding must be the same"
            if (feature.width or self.width) != (first.width or self.width):
                yield f"{path}.width", f"shares table {table} with {owner}, so its width must be the same"
            if _pooling(feature) not in (None, table_pooling(self.features, table)):
                yield f"{path}.pooling", f"shares table {table}, so its pooling must be the same as the others'"


def _numeric_problems(path: str, feature: NumericFeature) -> Iterator[tuple[str, str]]:
    if not feature.forms:
        yield f"{path}.forms", "at least one of value, bucket, vector is needed"
    if len(set(feature.forms)) != len(feature.forms):
        yield f"{path}.forms", "the same form is given twice"
    if feature.missing is not None and not math.isfinite(feature.missing):
        yield f"{path}.missing", f"the number that stands for null must be finite, got {feature.missing}"
    if feature.clip is not None and not feature.clip[0] < feature.clip[1]:
        yield f"{path}.clip", f"the smallest value must be below the largest, got {list(feature.clip)}"
    if isinstance(feature.buckets, GivenBuckets):
        boundaries = feature.buckets.boundaries
        if not boundaries or list(boundaries) != sorted(set(boundaries)):
            yield f"{path}.buckets.boundaries", f"boundaries must increase strictly, got {list(boundaries)}"
        elif not all(map(math.isfinite, boundaries)):
            yield f"{path}.buckets.boundaries", f"boundaries must be finite, got {list(boundaries)}"


def _pooling(feature: IdFeature | IdListFeature) -> str | None:
    return feature.pooling if isinstance(feature, IdListFeature) else None


def table_pooling(features: dict[str, FeatureConfig], table: str) -> Literal["sum", "mean"]:
    """Pooling of the first id list on a table; a single id pools to itself either way."""
    for name, feature in features.items():
        if isinstance(feature, IdListFeature) and (feature.table or name) == table:
            return feature.pooling
    return "sum"

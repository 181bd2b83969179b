"""fit: one streamed pass over the training data → EncoderState."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from recmoe.errors import DataError
from recmoe.features.arrow_ids import IdValues, id_column, id_list_column
from recmoe.features.columns import feature_column, id_column_of, plain_type
from recmoe.features.dynamic_ids import DynamicIds
from recmoe.features.encoder_state import EncoderState
from recmoe.features.key_counter import KeyCounter
from recmoe.features.label_values import encode_labels
from recmoe.features.labels import LabelColumn
from recmoe.features.numeric import read_number
from recmoe.features.schema import (
    DynamicConfig,
    FeatureSchema,
    GivenBuckets,
    IdFeature,
    NumericFeature,
    VocabularyConfig,
)
from recmoe.features.statistics import Moments, NumericStatistics, Sample, bucket_edges, quantile_cuts
from recmoe.features.transforms import signed_log1p
from recmoe.features.vocabulary import VocabularyCounter


def fit_state(
    schema: FeatureSchema,
    tables: Iterable[pa.Table],
    labels: Sequence[LabelColumn],
    *,
    base: EncoderState | None = None,
) -> EncoderState:
    """Learn vocabularies, statistics and column types in one pass; labels are checked on the way.

    Args:
        base: what an earlier model knew, and this one goes on with: ids keep their rows and new ones follow them,
            numbers keep their statistics and bucket edges. What ``base`` lacks is learnt.

    Raises:
        SchemaError: a column is missing or of a wrong type.
        DataError: there are no rows, a numeric feature has no numbers, or a label or number is wrong.
    """
    types: dict[str, pa.DataType] = {}
    known = kept_numbers(schema, base)
    vocabularies: dict[str, tuple[VocabularyCounter, VocabularyConfig]] = {}
    dynamic: dict[str, tuple[KeyCounter, DynamicIds, DynamicConfig]] = {}
    learners: dict[str, _NumberLearner] = {}
    for name, feature in schema.features.items():
        if isinstance(feature, NumericFeature):
            learners[name] = _NumberLearner(name, feature)
        elif isinstance(feature.encoding, VocabularyConfig):
            vocabularies.setdefault(feature.table or name, (VocabularyCounter(), feature.encoding))
        elif isinstance(feature.encoding, DynamicConfig):
            ids_before = _known_ids(feature.table or name, feature.encoding, base)
            dynamic.setdefault(feature.table or name, (ids_before.counter(), ids_before, feature.encoding))
    counters = {name: parts[0] for name, parts in (*vocabularies.items(), *dynamic.items())}
    num_rows = 0
    for table in tables:
        _learn_types(schema, table, types)
        encode_labels(table, labels, first_row=num_rows)
        for name, feature in schema.features.items():
            if isinstance(feature, NumericFeature):
                learners[name].add(table, first_row=num_rows)
            elif (feature.table or name) in counters:
                counter = counters[feature.table or name]
                for ids in _ids(table, name, schema):
                    counter.add(ids)
                    if isinstance(feature, IdFeature) and feature.missing is not None:
                        counter.add_repeated(feature.missing, int(ids.is_missing.sum()))
        num_rows += table.num_rows
    if not num_rows:
        raise DataError("the training data has no rows; check data.train")
    return EncoderState(
        inputs=schema.model_dump(mode="json"),
        columns=pa.schema(types.items()),
        vocabularies={
            name: counter.finish(config, base=None if base is None else base.vocabularies.get(name))
            for name, (counter, config) in vocabularies.items()
        },
        numbers={name: known.get(name) or learner.finish() for name, learner in learners.items()},
        dynamic={name: ids.updated(*counter.finish(), config) for name, (counter, ids, config) in dynamic.items()},
    )


def _known_ids(table: str, encoding: DynamicConfig, base: EncoderState | None) -> DynamicIds:
    """The ids of a table before the update: of an earlier model's table, dynamic or a vocabulary, or none."""
    if base is not None and table in base.dynamic:
        return base.dynamic[table]
    if base is not None and table in base.vocabularies:
        return DynamicIds.holding(*base.vocabularies[table].holders(), encoding)
    return DynamicIds.empty(encoding.capacity)


def kept_numbers(schema: FeatureSchema, base: EncoderState | None) -> dict[str, NumericStatistics]:
    """Statistics of an earlier model that still mean what they meant, by feature: it is read and cut the same way."""
    if base is None:
        return {}
    before = FeatureSchema.model_validate(base.inputs).features
    kept = {}
    for name, feature in schema.features.items():
        old = before.get(name)
        if isinstance(feature, NumericFeature) and isinstance(old, NumericFeature) and _reads_alike(old, feature):
            kept[name] = base.numbers[name]
    return kept


def _reads_alike(old: NumericFeature, new: NumericFeature) -> bool:
    def needs_edges(feature: NumericFeature) -> bool:
        return "bucket" in feature.forms or "vector" in feature.forms

    is_same = (old.missing, old.clip, old.log1p) == (new.missing, new.clip, new.log1p)
    return is_same and (not needs_edges(new) or (needs_edges(old) and old.buckets == new.buckets))


def _learn_types(schema: FeatureSchema, table: pa.Table, types: dict[str, pa.DataType]) -> None:
    columns = {
        feature.column or name: feature_column(table, name, feature) for name, feature in schema.features.items()
    }
    for column, role in ((schema.group, "group"), (schema.item, "item")):
        if column is not None:
            columns[column] = id_column_of(table, column, needed_by=f"the schema, as its {role}")
    for name, column in columns.items():
        # A chunk without a value tells nothing: the first one with a type counts.
        if name not in types or pa.types.is_null(types[name]):
            types[name] = plain_type(column.type)


def _ids(table: pa.Table, name: str, schema: FeatureSchema) -> Iterator[IdValues]:
    feature = schema.features[name]
    assert not isinstance(feature, NumericFeature)
    column = feature_column(table, name, feature)
    if isinstance(feature, IdFeature):
        yield from id_column(column)
        return
    for ids, _ in id_list_column(column, separator=feature.separator, max_length=feature.max_length):
        yield ids


class _NumberLearner:
    """Statistics of one numeric feature, chunk by chunk."""

    def __init__(self, name: str, feature: NumericFeature) -> None:
        self._name = name
        self._feature = feature
        self._moments = Moments()
        self._needs_edges = "bucket" in feature.forms or "vector" in feature.forms
        self._sample = Sample() if self._needs_edges and not isinstance(feature.buckets, GivenBuckets) else None

    def add(self, table: pa.Table, *, first_row: int) -> None:
        x_B = read_number(table, self._name, self._feature, first_row=first_row)
        x_n = x_B[~np.isnan(x_B)]
        self._moments.add(x_n)
        if self._sample is not None:
            self._sample.add(x_n)

    def finish(self) -> NumericStatistics:
        if not self._moments.count:
            raise DataError(
                f"column {self._feature.column or self._name!r} of feature {self._name!r} holds no number in the "
                "training data; leave the feature out"
            )
        return NumericStatistics(mean=self._moments.mean, std=self._moments.std, edges=self._edges())

    def _edges(self) -> tuple[float, ...]:
        if not self._needs_edges:
            return ()
        buckets = self._feature.buckets
        if isinstance(buckets, GivenBuckets):
            given = np.asarray(buckets.boundaries)
            cuts = (signed_log1p(given) if self._feature.log1p else given).tolist()
        else:
            assert self._sample is not None
            cuts = quantile_cuts(self._sample.finish(), buckets.count)
        return bucket_edges(cuts, smallest=self._moments.smallest, largest=self._moments.largest)

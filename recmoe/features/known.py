"""Known: what an earlier model knew, as far as it still means what it meant; what is learnt anew joins it."""

from collections.abc import Iterable

import pyarrow as pa

from recmoe.features.dynamic_ids import DynamicIds
from recmoe.features.encoder_state import EncoderState
from recmoe.features.schema import DynamicConfig, FeatureSchema, NumericFeature, VocabularyConfig
from recmoe.features.statistics import NumericStatistics
from recmoe.features.vocabulary import Vocabulary, most_frequent, vocabulary_of


class Known:
    """Ids and statistics before the training data is read; nothing, for a model that begins.

    Ids that are known keep their rows and new ones follow them. Which new ones do is found in two steps, of
    which the first can be done part by part, in any order and in many processes::

        counts of some ids, …   → candidates: the ids of a part that may get a row
        candidates of all parts → candidates → vocabulary, or dynamic: the ids and their rows

    Args:
        schema: the features.
        base: what the earlier model knew.
    """

    def __init__(self, schema: FeatureSchema, base: EncoderState | None = None) -> None:
        self.encodings: dict[str, VocabularyConfig | DynamicConfig] = {}
        """Of each table whose ids are learnt."""
        for name, feature in schema.features.items():
            if not isinstance(feature, NumericFeature) and isinstance(
                feature.encoding, VocabularyConfig | DynamicConfig
            ):
                self.encodings.setdefault(feature.table or name, feature.encoding)
        self.numbers = {} if base is None else _kept_numbers(schema, base)
        """Statistics by feature, which are not learnt again."""
        self._vocabularies: dict[str, Vocabulary] = {}
        self._dynamic: dict[str, DynamicIds] = {}
        for table, encoding in self.encodings.items():
            if isinstance(encoding, DynamicConfig):
                self._dynamic[table] = _ids_before(table, encoding, base)
            elif base is not None and table in base.vocabularies:
                self._vocabularies[table] = Vocabulary(base.vocabularies[table].ids.slice(0, encoding.max_size))

    def candidates(self, table: str, counts: Iterable[pa.Table]) -> pa.Table:
        """Of the ids of a table, those that may get a row, with their counts; of parts too, and of parts of parts.

        Args:
            table: of ids that are learnt.
            counts: as of ``IdCounts.merged``, each id in one of them.
        """
        encoding = self.encodings[table]
        if isinstance(encoding, DynamicConfig):
            return self._dynamic[table].candidates(counts, encoding)
        return most_frequent(counts, encoding, known=self._vocabularies.get(table))

    def vocabulary(self, table: str, candidates: pa.Table) -> Vocabulary:
        """The vocabulary of a table, grown by the candidates of all its ids."""
        return vocabulary_of(candidates, known=self._vocabularies.get(table))

    def dynamic(self, table: str, candidates: pa.Table, *, num_sightings: int) -> DynamicIds:
        """The ids of a table that come and go, after the candidates of all its ids and so many sightings in all."""
        encoding = self.encodings[table]
        assert isinstance(encoding, DynamicConfig)
        return self._dynamic[table].updated(
            candidates["key"].to_numpy(), candidates["count"].to_numpy(), encoding, num_sightings=num_sightings
        )


def _ids_before(table: str, encoding: DynamicConfig, base: EncoderState | None) -> DynamicIds:
    """The ids of a table before the update: of an earlier model's table, dynamic or a vocabulary, or none."""
    if base is not None and table in base.dynamic:
        return base.dynamic[table]
    if base is not None and table in base.vocabularies:
        return DynamicIds.holding(*base.vocabularies[table].holders(), encoding)
    return DynamicIds.empty(encoding.capacity)


def _kept_numbers(schema: FeatureSchema, base: EncoderState) -> dict[str, NumericStatistics]:
    """Statistics that still mean what they meant: their number is read and cut the same way."""
    before = FeatureSchema.model_validate(base.inputs).features
    kept = {}
    for name, feature in schema.features.items():
        old = before.get(name)
        if not (isinstance(feature, NumericFeature) and isinstance(old, NumericFeature)):
            continue
        if _reads_alike(old, feature) and base.numbers[name].is_known:
            kept[name] = base.numbers[name]
    return kept


def _reads_alike(old: NumericFeature, new: NumericFeature) -> bool:
    def needs_edges(feature: NumericFeature) -> bool:
        return "bucket" in feature.forms or "vector" in feature.forms

    is_same = (old.missing, old.clip, old.log1p) == (new.missing, new.clip, new.log1p)
    return is_same and (not needs_edges(new) or (needs_edges(old) and old.buckets == new.buckets))

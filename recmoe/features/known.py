"""Known: the parts of an earlier encoder that still match this schema; what is learned anew joins it."""

from collections.abc import Iterable

import pyarrow as pa

from recmoe.features.encoder_state import EncoderState
from recmoe.features.encodings.encoding import Growth
from recmoe.features.encodings.lookup import RowLookup
from recmoe.features.schema import FeatureSchema
from recmoe.features.statistics import NumericStatistics


class Known:
    """Ids and statistics before the training data is read; nothing, for a model that begins.

    Ids that are known keep their rows and new ones follow them. Which new ones do is found in two steps, of
    which the first can be done part by part, in any order and in many processes::

        counts of some ids, …   → candidates: the ids of a part that may get a row
        candidates of all parts → candidates → learned: the ids and their rows

    Args:
        schema: the features.
        base: the state of the earlier encoder.
    """

    def __init__(self, schema: FeatureSchema, base: EncoderState | None = None) -> None:
        self._growths: dict[str, Growth] = {}
        for table, spec in schema.tables().items():
            growth = spec.encoding.grow(None if base is None else base.learned(table))
            if growth is not None:
                self._growths[table] = growth
        self.numbers = {} if base is None else _kept_numbers(schema, base)
        """Statistics by feature, which are not learned again."""

    @property
    def tables(self) -> tuple[str, ...]:
        """Those whose ids are learned."""
        return tuple(self._growths)

    def candidates(self, table: str, counts: Iterable[pa.Table]) -> pa.Table:
        """Of the ids of a table, those that may get a row, with their counts; of parts too, and of parts of parts.

        Args:
            table: of ids that are learned.
            counts: as of ``IdCounts.merged``, each id in one of them.
        """
        return self._growths[table].candidates(counts)

    def learned(self, table: str, candidates: pa.Table, *, num_sightings: int) -> RowLookup:
        """The ids of a table, grown by the candidates of all its ids, which were seen so many times in all."""
        return self._growths[table].finish(candidates, num_sightings=num_sightings)


def _kept_numbers(schema: FeatureSchema, base: EncoderState) -> dict[str, NumericStatistics]:
    """Statistics that still mean what they meant: their number is read and cut the same way."""
    before = FeatureSchema.model_validate(base.inputs).features
    return {
        name: base.numbers[name]
        for name, feature in schema.features.items()
        if name in base.numbers and base.numbers[name].is_known and feature.keeps_statistics(before[name])
    }

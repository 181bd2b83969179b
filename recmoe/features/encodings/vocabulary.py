"""Vocabulary: cut the rare ids, look the others up; row 0 means unknown."""

# n ids

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import PositiveInt

from recmoe.config import Config
from recmoe.features.encodings.lookup import LookupByKeys, RowLookup, Rows, zero_where_null
from recmoe.features.id_keys import UInt64s, keys, text_bytes
from recmoe.features.key_index import KeyIndex


class VocabularyConfig(Config):
    """Ids seen in training, most frequent first; any other id is row 0."""

    is_frequent_first: ClassVar[bool] = True
    can_refuse: ClassVar[bool] = False

    kind: Literal["vocabulary"] = "vocabulary"
    min_count: PositiveInt = 1
    """Occurrences an id needs to get a row of its own."""
    max_size: PositiveInt = 1_000_000
    """Ids kept, the most frequent first."""

    @property
    def num_planned_ids(self) -> None:
        return None

    def build(self, *, learned: RowLookup | None, seed: int) -> RowLookup:
        assert learned is not None
        return learned

    def grow(self, earlier: RowLookup | None) -> "VocabularyGrowth":
        known = None
        if isinstance(earlier, Vocabulary):
            known = Vocabulary(earlier.ids.slice(0, self.max_size))
        return VocabularyGrowth(self, known)

    def fewer_unknown(self, path: str) -> str:
        return "" if self.min_count == 1 else f"lower {path}.min_count ({self.min_count}) to 1"


class Vocabulary:
    """Ids seen in training; the id at place i has row i + 1.

    Example: ``Vocabulary(pa.array(["b", "a"]))`` gives b row 1, a row 2, anything else row 0.
    """

    def __init__(self, ids: pa.Array) -> None:
        assert ids.null_count == 0
        self.ids = ids.cast(pa.large_string())

    @property
    def num_rows(self) -> int:
        return len(self.ids) + 1

    @cached_property
    def _index(self) -> KeyIndex:
        return KeyIndex(keys(self.ids))

    def rows(self, ids: pa.Array, *, name: str) -> Rows:
        return zero_where_null(ids, self.rows_of_keys(keys(ids)))

    def rows_of_keys(self, keys_n: UInt64s) -> Rows:
        return self._index.rows(keys_n)

    def holders(self) -> tuple[UInt64s, Rows]:
        return keys(self.ids), np.arange(1, self.num_rows)

    @staticmethod
    def together(lookups: "Sequence[Vocabulary]") -> LookupByKeys:
        return LookupByKeys(lookups)

    @property
    def digest(self) -> str:
        """Hash of the ids in their order."""
        _, lengths, data = text_bytes(self.ids)
        digest = hashlib.sha256(lengths.astype("<i8").tobytes())
        digest.update(data.tobytes())
        return digest.hexdigest()


class VocabularyGrowth:
    """A vocabulary that is being learned: ids that are known keep their rows, new ones follow them.

    Args:
        config: which ids get a row.
        known: ids that have one.
    """

    def __init__(self, config: VocabularyConfig, known: Vocabulary | None) -> None:
        self._config = config
        self._known = known

    def candidates(self, counts: Iterable[pa.Table]) -> pa.Table:
        return most_frequent(counts, self._config, known=self._known)

    def finish(self, candidates: pa.Table, *, num_sightings: int) -> Vocabulary:
        return vocabulary_of(candidates, known=self._known)


def most_frequent(counts: Iterable[pa.Table], config: VocabularyConfig, *, known: Vocabulary | None = None) -> pa.Table:
    """The ids that get a row: most frequent first, equally frequent ones in order of their text.

    Never holds more than two vocabularies; of parts that were cut before, the result is the same.

    Args:
        counts: tables with the columns ``id`` and ``count``, each id in one of them.
        known: ids that have a row already; they are left out, and so much less room is left.
    """
    size = config.max_size - (0 if known is None else len(known.ids))
    kept: list[pa.Table] = [pa.table({"id": pa.array([], pa.large_string()), "count": pa.array([], pa.int64())})]
    num_kept = 0
    for table in counts:
        frequent = table.select(["id", "count"]).filter(pc.greater_equal(table["count"], config.min_count))
        if known is not None:
            frequent = frequent.filter(pa.array(known.rows(_whole(frequent["id"]), name="") == 0))
        kept.append(frequent)
        num_kept += frequent.num_rows
        if num_kept > 2 * size:
            kept = [_first(kept, size)]
            num_kept = kept[0].num_rows
    return _first(kept, size)


def _first(parts: Sequence[pa.Table], size: int) -> pa.Table:
    order = [("count", "descending"), ("id", "ascending")]
    return pa.concat_tables(parts).sort_by(order).slice(0, size).combine_chunks()


def vocabulary_of(table: pa.Table, *, known: Vocabulary | None = None) -> Vocabulary:
    """The vocabulary of ids that are cut and in order, behind those that are known."""
    ids = _whole(table["id"])
    return Vocabulary(ids if known is None else pa.concat_arrays([known.ids, ids]))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)

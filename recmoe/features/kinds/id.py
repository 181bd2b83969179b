"""The kind id: one id per row, looked up in a table."""

# B rows, K features

from collections.abc import Hashable, Mapping, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import PositiveInt

from recmoe.config import Config
from recmoe.features.arrow_ids import IdBlock, id_column
from recmoe.features.encodings import EncodingConfig, VocabularyConfig
from recmoe.features.encodings.lookup import RowLookup
from recmoe.features.id_counts import IdCounts
from recmoe.features.id_keys import canonical
from recmoe.features.kinds.parts import (
    EncodedBlock,
    EncodedPart,
    IdTable,
    LayoutPart,
    RawPart,
    TableUse,
    joined,
    marked,
)
from recmoe.features.kinds.raw_keys import id_keys_of
from recmoe.features.layout import Side, SparseKey
from recmoe.features.number_learner import NumberLearner
from recmoe.features.raw_column import RawColumn
from recmoe.features.statistics import NumericStatistics


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

    def raw_columns(self, name: str) -> tuple[RawColumn, ...]:
        return (RawColumn(self.column or name, "id"),)

    def tables(self, name: str, *, width: int) -> tuple[TableUse, ...]:
        return (TableUse(self.table or name, self.encoding, self.width or width),)

    def widths(self) -> Mapping[str, int | None]:
        return {"width": self.width}

    def layout(
        self,
        name: str,
        *,
        width: int,
        tables: Mapping[str, IdTable],
        numbers: NumericStatistics | None,
    ) -> LayoutPart:
        table = self.table or name
        return LayoutPart(keys=(SparseKey(name, name, self.side, table, tables[table].width),))

    def build(
        self,
        name: str,
        *,
        lookups: Mapping[str, RowLookup],
        numbers: NumericStatistics | None,
    ) -> "IdReader":
        return IdReader(
            name=name, column=self.raw_columns(name)[0], lookup=lookups[self.table or name], missing=self.missing
        )

    def number_learner(self, name: str) -> None:
        return None

    def learn(
        self,
        rows: pa.Table,
        name: str,
        *,
        first_row: int,
        ids: IdCounts,
        numbers: NumberLearner | None,
    ) -> None:
        table = self.table or name
        if table not in ids.totals:
            return
        for chunk in id_column(self.raw_columns(name)[0].read(rows, feature=name)):
            ids.add(table, chunk)
            if self.missing is not None:
                ids.add_repeated(table, self.missing, int(chunk.is_missing.sum()))

    def keeps_statistics(self, before: object) -> bool:
        return False

    def read_raw(self, rows: pa.Table, name: str) -> RawPart:
        return RawPart(ids={name: id_keys_of(self.raw_columns(name)[0].read(rows, feature=name))})

    def planned_numbers(self) -> None:
        return None

    def planned_ids(self, name: str, *, per_row: float | None) -> dict[str, float]:
        return {name: 1.0}


class IdReader:
    """One id per row → one row of a table.

    Args:
        name: of the feature.
        column: where the ids are.
        lookup: of the table.
        missing: the id that stands for null, if any.
    """

    def __init__(self, *, name: str, column: RawColumn, lookup: RowLookup, missing: str | int | None) -> None:
        self._name = name
        self._column = column
        self._lookup = lookup
        self._missing_row = 0
        if missing is not None:
            ids = canonical(pa.array([missing]))
            self._missing_row = int(lookup.rows(ids, name=f"features.{name}.missing")[0])

    def encode(self, rows: pa.Table) -> EncodedPart:
        where = self._column.where(self._name)
        chunks = id_column(self._column.read(rows, feature=self._name))
        found = [ids.spread(self._lookup.rows(ids.distinct, name=where), missing=self._missing_row) for ids in chunks]
        return EncodedPart(ids={self._name: (joined(found), None)})

    def unknown_counts(self, rows: pa.Table, num_at_zero: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        chunks = id_column(self._column.read(rows, feature=self._name))
        num_missing = sum(int(ids.is_missing.sum()) for ids in chunks)
        missing_at_zero = num_missing if self._missing_row == 0 else 0
        return {self._name: (num_at_zero[self._name] - missing_at_zero, num_missing)}

    @property
    def kin(self) -> Hashable:
        return IdReader, type(self._lookup)

    @staticmethod
    def together(readers: "Sequence[IdReader]") -> "IdColumns":
        return IdColumns(readers)


class IdColumns:
    """Columns of one id per row; see ``Block``.

    Args:
        readers: of one kind of look-up.
    """

    def __init__(self, readers: Sequence[IdReader]) -> None:
        self.columns = tuple(reader._column.name for reader in readers)
        self.keys = tuple(reader._name for reader in readers)
        self.dense = ()
        self._lookup = type(readers[0]._lookup).together([reader._lookup for reader in readers])
        self._names = [reader._column.where(reader._name) for reader in readers]
        self._missing_rows_K1 = np.array([reader._missing_row for reader in readers], np.int64).reshape(-1, 1)

    def encode(self, values: pa.Array) -> EncodedBlock:
        ids = IdBlock(values, len(self.keys))
        rows_KB = self._lookup.rows(ids, self._names)
        is_missing_KB = ids.is_missing_KB
        is_unknown_KB = (rows_KB == 0) & ~is_missing_KB
        rows_KB = np.where(is_missing_KB, self._missing_rows_K1, rows_KB)
        return EncodedBlock(
            rows_KB=rows_KB,
            dense_FB=np.zeros((0, rows_KB.shape[1]), np.float32),
            missing=marked(self.keys, is_missing_KB),
            unknown=marked(self.keys, is_unknown_KB),
        )

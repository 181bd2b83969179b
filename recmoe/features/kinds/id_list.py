"""The kind id_list: any number of ids per row, pooled into one vector."""

# B rows

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import PositiveInt

from recmoe.config import Config
from recmoe.features.arrow_ids import IdValues, id_list_column
from recmoe.features.encodings import EncodingConfig, VocabularyConfig
from recmoe.features.encodings.lookup import RowLookup
from recmoe.features.id_counts import IdCounts
from recmoe.features.kinds.parts import (
    DEFAULT_LIST_LENGTH,
    EncodedPart,
    IdTable,
    LayoutPart,
    RawPart,
    TableUse,
    joined,
)
from recmoe.features.kinds.raw_keys import list_keys_of
from recmoe.features.layout import Side, SparseKey
from recmoe.features.number_learner import NumberLearner
from recmoe.features.raw_column import RawColumn
from recmoe.features.statistics import NumericStatistics


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

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.separator == "":
            yield "separator", "a separator needs a character; columns that hold lists need no separator"

    def raw_columns(self, name: str) -> tuple[RawColumn, ...]:
        return (RawColumn(self.column or name, "ids", separator=self.separator, max_length=self.max_length),)

    def tables(self, name: str, *, width: int) -> tuple[TableUse, ...]:
        return (TableUse(self.table or name, self.encoding, self.width or width, self.pooling),)

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
        return LayoutPart(keys=(SparseKey(name, name, self.side, table, tables[table].width, is_list=True),))

    def build(
        self,
        name: str,
        *,
        lookups: Mapping[str, RowLookup],
        numbers: NumericStatistics | None,
    ) -> "IdListReader":
        return IdListReader(name=name, column=self.raw_columns(name)[0], lookup=lookups[self.table or name])

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
        if table in ids.totals:
            for chunk, _ in lists_of(rows, name, self.raw_columns(name)[0]):
                ids.add(table, chunk)

    def keeps_statistics(self, before: object) -> bool:
        return False

    def read_raw(self, rows: pa.Table, name: str) -> RawPart:
        (column,) = self.raw_columns(name)
        return RawPart(lists={name: list_keys_of(column, column.read(rows, feature=name))})

    def planned_numbers(self) -> None:
        return None

    def planned_ids(self, name: str, *, per_row: float | None) -> dict[str, float]:
        usual = min(self.max_length or DEFAULT_LIST_LENGTH, DEFAULT_LIST_LENGTH)
        return {name: float(usual) if per_row is None else per_row}


def lists_of(rows: pa.Table, name: str, column: RawColumn) -> Iterator[tuple[IdValues, NDArray[np.int64]]]:
    """The ids of a column of lists, chunk by chunk, and how many each row has."""
    values = column.read(rows, feature=name)
    return id_list_column(values, separator=column.separator, max_length=column.max_length)


class IdListReader:
    """A list of ids per row → rows of a table.

    Args:
        name: of the feature.
        column: where the lists are.
        lookup: of the table.
    """

    def __init__(self, *, name: str, column: RawColumn, lookup: RowLookup) -> None:
        self._name = name
        self._column = column
        self._lookup = lookup

    def encode(self, rows: pa.Table) -> EncodedPart:
        where = self._column.where(self._name)
        found, lengths = [], []
        for ids, lengths_B in lists_of(rows, self._name, self._column):
            found.append(ids.spread(self._lookup.rows(ids.distinct, name=where), missing=0))
            lengths.append(lengths_B)
        return EncodedPart(ids={self._name: (joined(found), joined(lengths))})

    def unknown_counts(self, rows: pa.Table, num_at_zero: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        num_missing = self._column.read(rows, feature=self._name).null_count
        return {self._name: (num_at_zero[self._name], num_missing)}

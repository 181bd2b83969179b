"""The kind sequence: what someone did before, in the order of time; an encoder makes one vector of it."""

# B rows, N entries of all rows

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import PositiveInt

from recmoe.config import Config
from recmoe.features.encodings import EncodingConfig, VocabularyConfig
from recmoe.features.encodings.lookup import RowLookup
from recmoe.features.id_counts import IdCounts
from recmoe.features.kinds.parts import DEFAULT_LIST_LENGTH, EncodedPart, IdTable, LayoutPart, RawPart, TableUse, joined
from recmoe.features.kinds.raw_keys import list_keys_of
from recmoe.features.kinds.sequence_rows import SequenceRows, ages_of
from recmoe.features.layout import SequenceSpec, SparseKey
from recmoe.features.number_learner import NumberLearner
from recmoe.features.raw_column import RawColumn
from recmoe.features.statistics import NumericStatistics
from recmoe.sequence import HistoryEncoderConfig, TargetAttentionConfig


class SequenceColumn(Config):
    """One of the aligned columns: for every entry an id, such as the item, its category, or what was done with it."""

    column: str
    """Column of the log, with a list per row."""
    table: str | None = None
    """Table of another feature, such as the candidate's, whose encoding and width it takes; one of its own by default.
    """
    encoding: EncodingConfig | None = None
    """Of a table of its own; a vocabulary by default."""
    width: PositiveInt | None = None
    """Floats per row of a table of its own; the schema's width by default."""


class SequenceFeature(Config):
    """The entries of a history, the newest last; an encoder makes one vector of them, for each candidate if it likes.

    Example: the last items and their categories, looked up in the tables of the candidate's item and category::

        history:
          kind: sequence
          columns: {item: {column: seen_items, table: item_id}, category: {column: seen_categories, table: category}}
          time: seen_at
          encoder: {kind: target_attention}
    """

    kind: Literal["sequence"] = "sequence"
    side: Literal["user", "context"] = "user"
    """Whom it describes; a request carries it once."""
    columns: dict[str, SequenceColumn]
    """The aligned columns by a name of their own; those of one row hold lists of one length."""
    time: str | None = None
    """Column of the log with the times of the entries: timestamps, or numbers in any unit."""
    now: str | None = None
    """Column with the time of the row, from which the ages of the entries count; by default the newest entry's time."""
    separator: str | None = None
    """Splits string columns into entries, such as "|" in "a|b|c"; columns that hold lists need none."""
    max_length: PositiveInt = 50
    """Entries kept per row, the last ones."""
    encoder: HistoryEncoderConfig = TargetAttentionConfig()
    """What makes one vector of the entries."""

    def problems(self) -> Iterator[tuple[str, str]]:
        if not self.columns:
            yield "columns", "at least one column is needed, such as columns: {item: {column: seen_items}}"
        if self.now is not None and self.time is None:
            yield "now", "is the time of the row, from which the ages of entries count; give their times too (time:)"
        if self.separator == "":
            yield "separator", "a separator needs a character; columns that hold lists need no separator"

    def raw_columns(self, name: str) -> tuple[RawColumn, ...]:
        columns = [
            RawColumn(
                column.column,
                "ids",
                separator=self.separator,
                max_length=self.max_length,
                no_list_hint="make a list of it for every row",
            )
            for column in self.columns.values()
        ]
        if self.time is not None:
            columns.append(RawColumn(self.time, "times", separator=self.separator, max_length=self.max_length))
        if self.now is not None:
            columns.append(RawColumn(self.now, "time"))
        return tuple(columns)

    def tables(self, name: str, *, width: int) -> tuple[TableUse, ...]:
        return tuple(
            TableUse(
                table=column.table or sequence_key(name, part),
                encoding=column.encoding or (VocabularyConfig() if column.table is None else None),
                width=column.width or (width if column.table is None else None),
                key=f"columns.{part}.",
                origin="own" if column.table is None else "borrowed",
            )
            for part, column in self.columns.items()
        )

    def widths(self) -> Mapping[str, int | None]:
        return {
            f"columns.{part}.width": column.width
            for part, column in self.columns.items()
            if column.table is None or column.width is not None
        }

    def _tables(self, name: str) -> dict[str, str]:
        """Of each sparse key, its table."""
        return {
            sequence_key(name, part): column.table or sequence_key(name, part) for part, column in self.columns.items()
        }

    def layout(
        self, name: str, *, width: int, tables: Mapping[str, IdTable], numbers: NumericStatistics | None
    ) -> LayoutPart:
        keys = tuple(
            SparseKey(key, name, self.side, table, tables[table].width, is_list=True, is_sequence=True)
            for key, table in self._tables(name).items()
        )
        spec = SequenceSpec(
            name=name,
            side=self.side,
            keys=tuple(key.name for key in keys),
            max_length=self.max_length,
            has_ages=self.time is not None,
            encoder=self.encoder,
        )
        return LayoutPart(keys=keys, sequences=(spec,))

    def _rows(self, name: str) -> SequenceRows:
        columns = self.raw_columns(name)
        return SequenceRows(
            name=name,
            columns=dict(zip(self._tables(name), columns, strict=False)),
            time=columns[len(self.columns)] if self.time is not None else None,
            now=columns[-1] if self.now is not None else None,
            max_length=self.max_length,
        )

    def build(
        self, name: str, *, lookups: Mapping[str, RowLookup], numbers: NumericStatistics | None
    ) -> "SequenceReader":
        of_keys = {key: lookups[table] for key, table in self._tables(name).items()}
        return SequenceReader(name=name, rows=self._rows(name), lookups=of_keys)

    def number_learner(self, name: str) -> None:
        return None

    def learn(self, rows: pa.Table, name: str, *, first_row: int, ids: IdCounts, numbers: NumberLearner | None) -> None:
        entries = self._rows(name).read(rows, first_row=first_row)
        for key, table in self._tables(name).items():
            for chunk in entries.ids[key] if table in ids.totals else ():
                ids.add(table, chunk)

    def keeps_statistics(self, before: object) -> bool:
        return False

    def read_raw(self, rows: pa.Table, name: str) -> RawPart:
        columns = zip(self.columns, self.raw_columns(name), strict=False)
        return RawPart(
            lists={
                sequence_key(name, part): list_keys_of(column, column.read(rows, feature=name))
                for part, column in columns
            }
        )

    def planned_numbers(self) -> None:
        return None

    def planned_ids(self, name: str, *, per_row: float | None) -> dict[str, float]:
        usual = float(min(self.max_length, DEFAULT_LIST_LENGTH)) if per_row is None else per_row
        return dict.fromkeys(self._tables(name), usual)


class SequenceReader:
    """A history per row → aligned rows of tables, and the age of each entry.

    Args:
        name: of the feature.
        rows: what reads its columns.
        lookups: by sparse key.
    """

    def __init__(self, *, name: str, rows: SequenceRows, lookups: Mapping[str, RowLookup]) -> None:
        self._name = name
        self._rows = rows
        self._lookups = lookups

    def encode(self, rows: pa.Table) -> EncodedPart:
        entries = self._rows.read(rows)
        ids = {}
        for key, lookup in self._lookups.items():
            where = self._rows.columns[key].where(self._name)
            found = [chunk.spread(lookup.rows(chunk.distinct, name=where), missing=0) for chunk in entries.ids[key]]
            ids[key] = joined(found), entries.lengths_B
        if entries.times_N is None:
            return EncodedPart(ids=ids)
        ages_N = ages_of(entries.times_N, entries.lengths_B, entries.now_B)
        return EncodedPart(ids=ids, ages={self._name: ages_N.astype(np.float32)})

    def unknown_counts(self, rows: pa.Table, num_at_zero: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        entries = self._rows.read(rows)
        counts = {}
        for key, at_zero in num_at_zero.items():
            num_without_id = sum(int(chunk.is_missing.sum()) for chunk in entries.ids[key])
            num_missing = self._rows.columns[key].read(rows, feature=self._name).null_count
            counts[key] = at_zero - num_without_id, num_missing
        return counts


def sequence_key(feature: str, part: str) -> str:
    """Name of the key of one column of a sequence, and of its table where that is its own."""
    return f"{feature}#{part}"

"""Feature: what each kind of feature offers to the schema, the encoder and everything above them."""

from collections.abc import Mapping
from typing import Protocol

import pyarrow as pa

from recmoe.features.encodings.lookup import RowLookup
from recmoe.features.id_counts import IdCounts
from recmoe.features.kinds.parts import FeatureReader, IdTable, LayoutPart, RawPart, TableUse
from recmoe.features.layout import Side
from recmoe.features.number_learner import NumberLearner
from recmoe.features.raw_column import RawColumn
from recmoe.features.statistics import NumericStatistics


class Feature(Protocol):
    """The config of a feature. It does not know its own name, which is the key of its section."""

    @property
    def side(self) -> Side:
        """Whom it describes."""
        ...

    def raw_columns(self, name: str) -> tuple[RawColumn, ...]:
        """The columns of the log that it reads; the first one stands for it where one must."""
        ...

    def tables(self, name: str, *, width: int) -> tuple[TableUse, ...]:
        """The tables of ids that it looks up.

        Args:
            width: of the schema, where the feature gives none.
        """
        ...

    def widths(self) -> Mapping[str, int | None]:
        """By key of its section: floats of the rows of a table that it looks up, None for the schema's width."""
        ...

    def layout(
        self, name: str, *, width: int, tables: Mapping[str, IdTable], numbers: NumericStatistics | None
    ) -> LayoutPart:
        """The columns of the batch that it fills.

        Args:
            width: of the schema.
            tables: all tables of ids.
            numbers: what was learned of its numbers, if any.
        """
        ...

    def build(self, name: str, *, lookups: Mapping[str, RowLookup], numbers: NumericStatistics | None) -> FeatureReader:
        """What encodes its rows.

        Args:
            lookups: of all tables of ids.
            numbers: as for ``layout``.

        Raises:
            DataError: an id in the config lies beyond its table.
        """
        ...

    def number_learner(self, name: str) -> NumberLearner | None:
        """What learns statistics of its numbers; None where it has none."""
        ...

    def learn(self, rows: pa.Table, name: str, *, first_row: int, ids: IdCounts, numbers: NumberLearner | None) -> None:
        """Learn from some rows.

        Args:
            rows: raw columns.
            first_row: number of the first one in the training data.
            ids: counts of the tables whose ids are learned.
            numbers: from ``number_learner``.
        """
        ...

    def keeps_statistics(self, before: "Feature") -> bool:
        """Whether statistics that were learned of an earlier form of the feature still mean the same."""
        ...

    def read_raw(self, rows: pa.Table, name: str) -> RawPart:
        """Its values as simple models read them."""
        ...

    def planned_numbers(self) -> NumericStatistics | None:
        """Statistics with as many buckets as the config allows, before any log exists."""
        ...

    def planned_ids(self, name: str, *, per_row: float | None) -> dict[str, float]:
        """Ids of a row by sparse key, before any log exists.

        Args:
            per_row: of a list, what is known of its length.
        """
        ...

"""Learner: what rows teach, chunk by chunk and in parts; fit_state() is one over all training data."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from recmoe.errors import DataError
from recmoe.features.columns import has_fractions, id_column_of, is_list_type, plain_type
from recmoe.features.encoder_state import EncoderState
from recmoe.features.encodings.dynamic import DynamicIds
from recmoe.features.encodings.vocabulary import Vocabulary
from recmoe.features.id_counts import IdCounts
from recmoe.features.known import Known
from recmoe.features.label_values import encode_labels
from recmoe.features.labels import LabelColumn
from recmoe.features.number_learner import NumberLearner
from recmoe.features.schema import FeatureSchema


class Learner:
    """Vocabularies, statistics and column types, learned from some rows of the training data.

    Learners of parts, merged in any order, are the learner of the whole, bit for bit: counts are integers,
    samples go by the number of a row, and moments are added up by pieces of the data that depend on nothing
    but their place. A learner that is spilled can be pickled and sent.

    Args:
        schema: the features.
        labels: checked on the way.
        folder: where ids that exceed ``max_bytes`` are spilled; by default they never are.
        max_bytes: what the counts of ids may take in memory.
    """

    def __init__(
        self,
        schema: FeatureSchema,
        labels: Sequence[LabelColumn],
        *,
        folder: Path | None = None,
        max_bytes: int = 1 << 30,
    ) -> None:
        self._schema = schema
        self._labels = tuple(labels)
        self._types: dict[str, tuple[int, pa.DataType]] = {}
        """Of each column, with the row that gave it."""
        self._has_fractions: dict[str, bool] = {}
        """Of each column of ids that are stored as floats, once it holds one."""
        self._numbers: dict[str, NumberLearner] = {}
        for name, feature in schema.features.items():
            learner = feature.number_learner(name)
            if learner is not None:
                self._numbers[name] = learner
        self.tables = Known(schema).tables
        """Those whose ids are learned."""
        self.ids = IdCounts(self.tables, folder=folder, max_bytes=max_bytes)
        self.num_rows = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw columns that are read."""
        return tuple(dict.fromkeys([*self._typed_columns(), *(label.column for label in self._labels)]))

    def _typed_columns(self) -> list[str]:
        columns = [column.name for _, column in self._schema.raw_columns()]
        return columns + [column for column in (self._schema.group, self._schema.item) if column is not None]

    def add(self, table: pa.Table, *, first_row: int) -> None:
        """Learn from some rows.

        Args:
            table: the rows.
            first_row: number of the first one in the training data, for errors too.

        Raises:
            SchemaError: a column is missing or of a wrong type.
            DataError: a label is wrong.
        """
        self._learn_types(table, first_row)
        encode_labels(table, self._labels, first_row=first_row)
        for name, feature in self._schema.features.items():
            feature.learn(table, name, first_row=first_row, ids=self.ids, numbers=self._numbers.get(name))
        self.num_rows += table.num_rows

    def _learn_types(self, table: pa.Table, first_row: int) -> None:
        columns = {column.name: column.read(table, feature=name) for name, column in self._schema.raw_columns()}
        for column, role in ((self._schema.group, "group"), (self._schema.item, "item")):
            if column is not None:
                columns[column] = id_column_of(table, column, needed_by=f"the schema, as its {role}")
        self._keep_types({name: (first_row, plain_type(column.type)) for name, column in columns.items()})
        for name in self._id_columns() & columns.keys():
            found = has_fractions(columns[name])
            if found is not None:
                self._has_fractions[name] = found or self._has_fractions.get(name, False)

    def _id_columns(self) -> set[str]:
        columns = {column.name for _, column in self._schema.raw_columns() if column.is_id}
        return columns | {column for column in (self._schema.group, self._schema.item) if column is not None}

    def _type(self, column: str) -> pa.DataType:
        """The type of a column; ids that are whole in every row are integers, for null makes floats of them."""
        kind = self._types[column][1]
        if self._has_fractions.get(column, True):
            return kind
        return pa.list_(pa.int64()) if is_list_type(kind) else pa.int64()

    def _keep_types(self, types: Mapping[str, tuple[int, pa.DataType]]) -> None:
        for name, found in types.items():
            known = self._types.get(name)
            # Rows without a value tell nothing: the first ones with a type count.
            if known is None or _rank(found) < _rank(known):
                self._types[name] = found

    def merge(self, other: "Learner") -> None:
        """Add what other rows have taught; their ids must be spilled."""
        self._keep_types(other._types)
        for name, found in other._has_fractions.items():
            self._has_fractions[name] = found or self._has_fractions.get(name, False)
        for name, learner in self._numbers.items():
            learner.merge(other._numbers[name])
        self.ids.absorb(other.ids)
        self.num_rows += other.num_rows

    def finish(
        self, candidates: Mapping[str, pa.Table] | None = None, *, base: EncoderState | None = None
    ) -> EncoderState:
        """What the rows have taught.

        Args:
            candidates: by table, the ids that may get a row (``Known.candidates``); by default they are found here.
            base: what an earlier model knew, and this one goes on with: ids keep their rows and new ones follow them,
                numbers keep their statistics and bucket edges. What ``base`` lacks is learned.

        Raises:
            DataError: there are no rows.
        """
        if not self.num_rows:
            raise DataError("the training data has no rows; check data.train")
        known = Known(self._schema, base)
        if candidates is None:
            candidates = {table: known.candidates(table, self.ids.merged(table)) for table in self.tables}
        learned = {
            table: known.learned(table, candidates[table], num_sightings=self.ids.totals[table])
            for table in known.tables
        }
        return EncoderState(
            inputs=self._schema.model_dump(mode="json"),
            columns=pa.schema({column: self._type(column) for column in self._typed_columns()}.items()),
            vocabularies={table: ids for table, ids in learned.items() if isinstance(ids, Vocabulary)},
            numbers={name: known.numbers.get(name) or learner.finish() for name, learner in self._numbers.items()},
            dynamic={table: ids for table, ids in learned.items() if isinstance(ids, DynamicIds)},
        )


def fit_state(
    schema: FeatureSchema,
    tables: Iterable[pa.Table],
    labels: Sequence[LabelColumn],
    *,
    base: EncoderState | None = None,
) -> EncoderState:
    """Learn from rows in one pass, with all counts in memory; see ``Learner``.

    Raises:
        SchemaError: a column is missing or of a wrong type.
        DataError: there are no rows, or a label is wrong.
    """
    learner = Learner(schema, labels)
    for table in tables:
        learner.add(table, first_row=learner.num_rows)
    return learner.finish(base=base)


def _rank(found: tuple[int, pa.DataType]) -> tuple[bool, int]:
    first_row, kind = found
    return pa.types.is_null(kind), first_row

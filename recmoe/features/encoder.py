"""FeatureEncoder: Arrow table → Batch, in training and in serving."""

# B rows, F dense columns, K sparse keys, L label columns

from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from recmoe.features.arrow_ids import id_column
from recmoe.features.batch import NO_GROUP, Batch
from recmoe.features.columns import id_column_of, is_list_type
from recmoe.features.encoder_state import EncoderState, fingerprint, load_encoder, save_encoder
from recmoe.features.encodings.lookup import RowLookup
from recmoe.features.fit import fit_state
from recmoe.features.id_keys import keys
from recmoe.features.input_layout import build_layout
from recmoe.features.kinds.parts import EncodedPart, Floats32, Ints, joined
from recmoe.features.label_values import encode_labels
from recmoe.features.labels import LabelColumn
from recmoe.features.layout import ALL_SIDES, InputLayout, Side
from recmoe.features.schema import FeatureSchema


class FeatureEncoder:
    """The only code that turns raw values into ids and floats.

    Ids become rows of tables, unknown and missing ones row 0; numbers become floats, rows of
    buckets and positions; a row is encoded the same alone and in a batch.

    Example: ``city`` an id with the vocabulary Rome, Oslo; ``price`` a z-score of mean 5 and
    deviation 2, also as a bucket with the edges 1, 4, 9::

        city    price         dense_BF    lengths_KB    values
        "Oslo"  9.0            [[2.0],    [[1, 1],      [2, 0,      city: Oslo, missing
        null    3.0             [-1.0]]    [1, 1]]       2, 1]      price#bucket: [4, 9], [1, 4)

    Args:
        schema: the features.
        labels: label columns, in the order of ``labels_BL``.
        state: what ``fit`` has learned.
    """

    def __init__(self, schema: FeatureSchema, labels: Sequence[LabelColumn], state: EncoderState) -> None:
        self.schema = schema
        self.labels = tuple(labels)
        self.state = state
        """What was learned."""
        self.lookups: dict[str, RowLookup] = {
            table: spec.encoding.build(learned=state.learned(table), seed=schema.seed)
            for table, spec in schema.tables().items()
        }
        """What looks up the ids of each table of ids."""
        self.readers = {
            name: feature.build(name, lookups=self.lookups, numbers=state.numbers.get(name))
            for name, feature in schema.features.items()
        }
        """What encodes each feature."""
        num_rows = {table: lookup.num_rows for table, lookup in self.lookups.items()}
        self.layout: InputLayout = build_layout(schema, num_rows=num_rows, numbers=state.numbers)

    @classmethod
    def fit(
        cls,
        schema: FeatureSchema,
        tables: Iterable[pa.Table],
        labels: Sequence[LabelColumn] = (),
        *,
        base: "FeatureEncoder | None" = None,
    ) -> "FeatureEncoder":
        """Learn vocabularies and statistics in one streamed pass over the training data.

        Args:
            base: the encoder of an earlier model, which grows: what it knows stays as it is.

        Raises:
            SchemaError: a column is missing or of a wrong type.
            DataError: there are no rows, or a label is wrong.
        """
        return cls(schema, labels, fit_state(schema, tables, labels, base=None if base is None else base.state))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of schema, labels and what was learned: equal fingerprints encode every row alike."""
        return fingerprint(self.labels, self.state)

    def save(self, directory: Path) -> None:
        """Write it as JSON and Arrow files; the folder appears whole or not at all, and replaces an encoder."""
        save_encoder(directory, labels=self.labels, state=self.state, fingerprint=self.fingerprint)

    @classmethod
    def load(cls, directory: Path) -> "FeatureEncoder":
        """Read what ``save`` wrote; DataError if it is missing, damaged or of another version."""
        return cls(*load_encoder(directory))

    def columns(self, *, sides: Collection[Side] = ALL_SIDES, with_labels: bool = True) -> tuple[str, ...]:
        """The raw columns that ``encode`` needs: of features, and of group and labels if labels are asked for."""
        names = [column.name for name, column in self.schema.raw_columns() if self.schema.features[name].side in sides]
        if with_labels:
            if self.schema.group is not None:
                names.append(self.schema.group)
            names.extend(label.column for label in self.labels)
        return tuple(dict.fromkeys(names))

    def arrow_schema(self, *, sides: Collection[Side] = ALL_SIDES) -> pa.Schema:
        """Raw columns of features, item (on the item side) and group (on the others), as typed in training.

        Types are plain: strings and lists without dictionaries, large offsets or views. A column without
        a value in training is of strings or floats, as its feature needs.
        """
        fields: dict[str, pa.DataType] = {}
        for name, column in self.schema.raw_columns():
            if self.schema.features[name].side in sides:
                kind = self.state.columns.field(column.name).type
                fields[column.name] = column.type_of_nulls if _holds_nothing(kind) else kind
        group, item = self.schema.group, self.schema.item
        if item is not None and "item" in sides:
            fields.setdefault(item, self.state.columns.field(item).type)
        if group is not None and ("user" in sides or "context" in sides):
            fields.setdefault(group, self.state.columns.field(group).type)
        return pa.schema(fields.items())

    def encode(self, table: pa.Table, *, sides: Collection[Side] = ALL_SIDES, with_labels: bool = True) -> Batch:
        """Rows of raw columns as a batch in the order of ``layout.select(sides)``.

        Args:
            table: B rows, columns in any order, more than needed does not matter.
            sides: whose features; the columns of the others need not be there.
            with_labels: whether to read labels and require the group; without, ``labels_BL`` has no columns.

        Raises:
            SchemaError: a column is missing or of a wrong type.
            DataError: a label is wrong, or an id beyond its table.
        """
        layout = self.layout.select(sides)
        parts = [
            reader.encode(table) for name, reader in self.readers.items() if self.schema.features[name].side in sides
        ]
        dense: dict[str, Floats32] = {name: values for part in parts for name, values in part.dense.items()}
        sparse: dict[str, tuple[Ints, Ints | None]] = {name: ids for part in parts for name, ids in part.ids.items()}
        num_rows = table.num_rows
        dense_BF = np.empty((num_rows, len(layout.dense)), np.float32)
        for index, column in enumerate(layout.dense):
            dense_BF[:, index] = dense[column.name]
        lengths_KB = np.ones((len(layout.sparse), num_rows), np.int32)
        for index, key in enumerate(layout.sparse):
            lengths_B = sparse[key.name][1]
            if lengths_B is not None:
                lengths_KB[index] = lengths_B
        values = joined([sparse[key.name][0] for key in layout.sparse])
        return Batch(
            dense_BF=torch.from_numpy(dense_BF),
            lengths_KB=torch.from_numpy(lengths_KB),
            values=torch.from_numpy(values),
            labels_BL=encode_labels(table, self.labels if with_labels else ()),
            groups_B=self._groups(table, is_required=with_labels),
            ages=ages_of(parts, layout),
        )

    def encode_labels(self, table: pa.Table) -> Tensor:
        """labels_BL alone, as ``encode`` makes them; the table needs no other columns."""
        return encode_labels(table, self.labels)

    def _groups(self, table: pa.Table, *, is_required: bool) -> Tensor | None:
        """A hash of each row's group; ``NO_GROUP`` for rows without one, which are in no list."""
        group = self.schema.group
        if group is None or (not is_required and group not in table.column_names):
            return None
        column = id_column_of(table, group, needed_by="the schema, as its group")
        return torch.from_numpy(
            joined([ids.spread(keys(ids.distinct).view(np.int64), missing=NO_GROUP) for ids in id_column(column)])
        )

    def unknown_counts(
        self, table: pa.Table, batch: Batch, sides: Collection[Side] = ALL_SIDES
    ) -> dict[str, tuple[int, int]]:
        """Per sparse key of ids of some sides: ids that training has not seen, and missing values (null, NaN).

        Args:
            table: the rows.
            batch: what ``encode(table, sides=sides)`` made of them.
            sides: those of the batch.
        """
        keys_K = self.layout.select(sides).sparse
        ids_K = torch.split(batch.values, batch.count_ids())
        num_at_zero: dict[str, dict[str, int]] = {}
        for key, ids_n in zip(keys_K, ids_K, strict=True):
            num_at_zero.setdefault(key.feature, {})[key.name] = int((ids_n == 0).sum())
        counts: dict[str, tuple[int, int]] = {}
        for feature, of_keys in num_at_zero.items():
            counts.update(self.readers[feature].unknown_counts(table, of_keys))
        return counts


def ages_of(parts: Iterable[EncodedPart], layout: InputLayout) -> Tensor | None:
    """The ages of a batch from those of its features; see ``Batch``."""
    ages = {name: ages_N for part in parts for name, ages_N in part.ages.items()}
    found = [ages[sequence.name] for sequence in layout.sequences if sequence.has_ages]
    return torch.from_numpy(np.concatenate(found)) if found else None


def _holds_nothing(kind: pa.DataType) -> bool:
    return bool(pa.types.is_null(kind) or (is_list_type(kind) and pa.types.is_null(kind.value_type)))

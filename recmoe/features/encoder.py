"""FeatureEncoder: Arrow table → Batch, in training and in serving."""

# B rows, F dense columns, K sparse keys, L label columns

from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from recmoe.features.arrow_ids import id_column, id_list_column
from recmoe.features.batch import NO_GROUP, Batch
from recmoe.features.columns import feature_column, id_column_of, is_list_type
from recmoe.features.encoder_state import EncoderState, fingerprint, load_encoder, save_encoder
from recmoe.features.fit import fit_state
from recmoe.features.id_keys import canonical, keys
from recmoe.features.input_layout import bucket_key, build_layout
from recmoe.features.label_values import encode_labels
from recmoe.features.labels import LabelColumn
from recmoe.features.layout import ALL_SIDES, InputLayout, Side
from recmoe.features.numeric import bucket_form, read_number, value_form, vector_form
from recmoe.features.schema import FeatureSchema, IdFeature, IdListFeature, NumericFeature
from recmoe.features.transforms import Floats
from recmoe.features.vocabulary import RowLookup, build_lookup

Ints = NDArray[np.int64]


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
        state: what ``fit`` has learnt.
    """

    def __init__(self, schema: FeatureSchema, labels: Sequence[LabelColumn], state: EncoderState) -> None:
        self.schema = schema
        self.labels = tuple(labels)
        self.state = state
        """What was learnt."""
        self.lookups = self._build_lookups()
        """What looks up the ids of each table of ids."""
        self._missing_rows = self._build_missing_rows()
        num_rows = {table: lookup.num_rows for table, lookup in self.lookups.items()}
        self.layout: InputLayout = build_layout(schema, num_rows=num_rows, numbers=state.numbers)

    def _build_lookups(self) -> dict[str, RowLookup]:
        lookups: dict[str, RowLookup] = {}
        for name, feature in self.schema.features.items():
            if isinstance(feature, NumericFeature):
                continue
            table = feature.table or name
            if table not in lookups:
                learnt = self.state.vocabularies.get(table) or self.state.dynamic.get(table)
                lookups[table] = build_lookup(feature.encoding, learnt=learnt, seed=self.schema.seed)
        return lookups

    def _build_missing_rows(self) -> dict[str, int]:
        """Row of a null, by feature: that of the id that stands for it, where one does."""
        rows = {}
        for name, feature in self.schema.features.items():
            if isinstance(feature, IdFeature) and feature.missing is not None:
                ids = canonical(pa.array([feature.missing]))
                where = f"features.{name}.missing"
                rows[name] = int(self.lookups[feature.table or name].rows(ids, name=where)[0])
        return rows

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
        """sha256 of schema, labels and what was learnt: equal fingerprints encode every row alike."""
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
        names = [feature.column or name for name, feature in self.schema.features.items() if feature.side in sides]
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
        for name, feature in self.schema.features.items():
            column = feature.column or name
            if feature.side in sides:
                kind = self.state.columns.field(column).type
                fields[column] = _type_of_nulls(feature) if _holds_nothing(kind) else kind
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
        dense: dict[str, NDArray[np.float32]] = {}
        sparse: dict[str, tuple[Ints, Ints | None]] = {}
        for name, feature in self.schema.features.items():
            if feature.side not in sides:
                continue
            if isinstance(feature, NumericFeature):
                self._encode_number(read_number(table, name, feature), name, feature, dense, sparse)
            elif isinstance(feature, IdFeature):
                sparse[name] = self._id_rows(table, name, feature), None
            else:
                sparse[name] = self._list_rows(table, name, feature)
        num_rows = table.num_rows
        dense_BF = np.empty((num_rows, len(layout.dense)), np.float32)
        for index, column in enumerate(layout.dense):
            dense_BF[:, index] = dense[column.name]
        lengths_KB = np.ones((len(layout.sparse), num_rows), np.int32)
        for index, key in enumerate(layout.sparse):
            lengths_B = sparse[key.name][1]
            if lengths_B is not None:
                lengths_KB[index] = lengths_B
        values = _joined([sparse[key.name][0] for key in layout.sparse])
        return Batch(
            dense_BF=torch.from_numpy(dense_BF),
            lengths_KB=torch.from_numpy(lengths_KB),
            values=torch.from_numpy(values),
            labels_BL=encode_labels(table, self.labels if with_labels else ()),
            groups_B=self._groups(table, is_required=with_labels),
        )

    def encode_labels(self, table: pa.Table) -> Tensor:
        """labels_BL alone, as ``encode`` makes them; the table needs no other columns."""
        return encode_labels(table, self.labels)

    def _encode_number(
        self,
        x_B: Floats,
        name: str,
        feature: NumericFeature,
        dense: dict[str, NDArray[np.float32]],
        sparse: dict[str, tuple[Ints, Ints | None]],
    ) -> None:
        numbers = self.state.numbers[name]
        if not numbers.is_known:
            x_B = np.full_like(x_B, np.nan)
        if "value" in feature.forms:
            dense[name] = value_form(x_B, feature, numbers)
        if "vector" in feature.forms:
            dense[f"{name}#position"] = vector_form(x_B, numbers)
        if "bucket" in feature.forms:
            sparse[bucket_key(name)] = bucket_form(x_B, numbers), None

    def _id_rows(self, table: pa.Table, name: str, feature: IdFeature) -> Ints:
        lookup, missing = self.lookups[feature.table or name], self._missing_rows.get(name, 0)
        where = f"column {feature.column or name!r} of feature {name!r}"
        chunks = id_column(feature_column(table, name, feature))
        return _joined([ids.spread(lookup.rows(ids.distinct, name=where), missing=missing) for ids in chunks])

    def _list_rows(self, table: pa.Table, name: str, feature: IdListFeature) -> tuple[Ints, Ints]:
        lookup = self.lookups[feature.table or name]
        where = f"column {feature.column or name!r} of feature {name!r}"
        column = feature_column(table, name, feature)
        rows, lengths = [], []
        for ids, lengths_B in id_list_column(column, separator=feature.separator, max_length=feature.max_length):
            rows.append(ids.spread(lookup.rows(ids.distinct, name=where), missing=0))
            lengths.append(lengths_B)
        return _joined(rows), _joined(lengths)

    def _groups(self, table: pa.Table, *, is_required: bool) -> Tensor | None:
        """A hash of each row's group; ``NO_GROUP`` for rows without one, which are in no list."""
        group = self.schema.group
        if group is None or (not is_required and group not in table.column_names):
            return None
        column = id_column_of(table, group, needed_by="the schema, as its group")
        return torch.from_numpy(
            _joined([ids.spread(keys(ids.distinct).view(np.int64), missing=NO_GROUP) for ids in id_column(column)])
        )

    def unknown_counts(
        self, table: pa.Table, batch: Batch, sides: Collection[Side] = ALL_SIDES
    ) -> dict[str, tuple[int, int]]:
        """Per id feature of some sides: ids that training has not seen, and missing values (null, NaN).

        Args:
            table: the rows.
            batch: what ``encode(table, sides=sides)`` made of them.
            sides: those of the batch.
        """
        counts = {}
        ends = np.cumsum(batch.lengths_KB.sum(dim=1).numpy())
        for key, end, length in zip(
            self.layout.select(sides).sparse, ends, batch.lengths_KB.sum(dim=1).tolist(), strict=True
        ):
            feature = self.schema.features[key.feature]
            if isinstance(feature, NumericFeature):
                continue
            num_at_zero = int((batch.values[end - length : end] == 0).sum())
            column = feature_column(table, key.feature, feature)
            if isinstance(feature, IdListFeature):
                counts[key.feature] = (num_at_zero, column.null_count)
                continue
            num_missing = sum(int(ids.is_missing.sum()) for ids in id_column(column))
            is_at_zero = self._missing_rows.get(key.feature, 0) == 0
            counts[key.feature] = (num_at_zero - (num_missing if is_at_zero else 0), num_missing)
        return counts


def _joined(parts: Sequence[Ints]) -> Ints:
    if len(parts) == 1:
        # Torch warns of memory that cannot be written, as Arrow's is not.
        return parts[0] if parts[0].flags.writeable else parts[0].copy()
    return np.concatenate(parts, dtype=np.int64) if parts else np.zeros(0, np.int64)


def _holds_nothing(kind: pa.DataType) -> bool:
    return bool(pa.types.is_null(kind) or (is_list_type(kind) and pa.types.is_null(kind.value_type)))


def _type_of_nulls(feature: IdFeature | IdListFeature | NumericFeature) -> pa.DataType:
    if isinstance(feature, NumericFeature):
        return pa.float64()
    if isinstance(feature, IdListFeature) and feature.separator is None:
        return pa.list_(pa.string())
    return pa.string()

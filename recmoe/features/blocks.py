"""BlockEncoder: the few rows of a request → Batch, with a step per type of column in place of one per column."""

# B rows, F dense columns, K sparse keys

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from recmoe.features.batch import Batch
from recmoe.features.encoder import FeatureEncoder, ages_of
from recmoe.features.kinds.parts import Block, EncodedPart, Ints, JoinsBlocks, joined
from recmoe.features.layout import InputLayout, Side


@dataclass(frozen=True)
class BlockRows:
    """Raw columns of B rows."""

    blocks: Sequence[pa.Array]
    """Of each block, the values of its columns, column after column."""
    others: pa.Table | None
    """Columns of features that are in no block; None where there are none."""
    num_rows: int


@dataclass(frozen=True)
class EncodedRows:
    """B rows as the model reads them, and what of them the model does not know."""

    batch: Batch
    missing: Mapping[str, int]
    """Nulls by feature, where there are any."""
    unknown: Mapping[str, int]
    """Ids that training has not seen, by feature, where there are any."""


@dataclass(frozen=True)
class MarkedRows:
    """B rows as the model reads them, and which of them it does not know."""

    batch: Batch
    missing: Mapping[str, NDArray[np.bool_]]
    """By feature with nulls: where they are."""
    unknown: Mapping[str, NDArray[np.integer[Any] | np.bool_]]
    """By feature with ids that training has not seen: how many a row has."""


class BlockEncoder:
    """Encodes rows of some sides as ``FeatureEncoder.encode`` does, bit by bit.

    There a column costs more than the hundreds of values that a request has of it. Here columns of one type are one
    array, whose ids are hashed and looked up together and whose numbers are scaled together. What cannot be joined,
    such as lists, is encoded by its own reader.

    Args:
        encoder: of the model.
        sides: whose features.
        types: of the raw columns, as the rows will have them.
        ids: columns that are read otherwise than the rest, and so are in blocks of their own.
        features: some features of these sides; all by default.
    """

    def __init__(
        self,
        encoder: FeatureEncoder,
        sides: Collection[Side],
        types: Mapping[str, pa.DataType],
        *,
        ids: Collection[str] = (),
        features: Collection[str] | None = None,
    ) -> None:
        layout = encoder.layout.select(sides)
        self.layout = layout if features is None else layout.of_features(features)
        self._id_tables = frozenset(encoder.lookups)
        kin: dict[Hashable, list[JoinsBlocks]] = {}
        self._others = {}
        self._other_columns: dict[str, str] = {}
        for name, reader in encoder.readers.items():
            feature = encoder.schema.features[name]
            if feature.side not in sides or (features is not None and name not in features):
                continue
            columns = feature.raw_columns(name)
            if isinstance(reader, JoinsBlocks):
                column = columns[0].name
                kin.setdefault((reader.kin, types[column], column in ids), []).append(reader)
            else:
                self._others[name] = reader
                self._other_columns[name] = columns[0].name
        self._blocks: list[Block] = [type(readers[0]).together(readers) for readers in kin.values()]
        self.block_columns = [block.columns for block in self._blocks]
        """The raw columns of each block."""
        self.other_columns = tuple(
            dict.fromkeys(
                column.name for name in self._others for column in encoder.schema.features[name].raw_columns(name)
            )
        )
        """Raw columns of features that are in no block."""
        keys = {key.name: place for place, key in enumerate(self.layout.sparse)}
        dense = {column.name: place for place, column in enumerate(self.layout.dense)}
        self._key_places = [np.array([keys[name] for name in block.keys], np.int64) for block in self._blocks]
        self._dense_places = [np.array([dense[name] for name in block.dense], np.int64) for block in self._blocks]
        self._block_types = [types[block.columns[0]] for block in self._blocks]

    def of_table(self, table: pa.Table) -> BlockRows:
        """The rows of a table, whose columns may be of any type that casts to the one of requests."""
        blocks = []
        for block, type_ in zip(self._blocks, self._block_types, strict=True):
            columns = [table.column(name).cast(type_) for name in block.columns]
            blocks.append(pa.concat_arrays([chunk for column in columns for chunk in column.chunks]))
        return BlockRows(blocks, table if self._others else None, table.num_rows)

    def encode(self, rows: BlockRows) -> EncodedRows:
        """The rows in the order of ``layout``.

        Raises:
            DataError: an id lies beyond its table.
            SchemaError: a column that is in no block is missing or of a wrong type.
        """
        found = self.encode_marked(rows)
        return EncodedRows(found.batch, _counts(found.missing), _counts(found.unknown))

    def encode_marked(self, rows: BlockRows) -> MarkedRows:
        """The same, row by row in what it does not know."""
        encoded = [block.encode(values) for block, values in zip(self._blocks, rows.blocks, strict=True)]
        parts = {name: reader.encode(rows.others) for name, reader in self._others.items()}
        rows_KB = np.zeros((len(self.layout.sparse), rows.num_rows), np.int64)
        dense_FB = np.zeros((len(self.layout.dense), rows.num_rows), np.float32)
        missing: dict[str, NDArray[np.bool_]] = {}
        unknown: dict[str, NDArray[np.integer[Any] | np.bool_]] = {}
        for of_block, keys, dense in zip(encoded, self._key_places, self._dense_places, strict=True):
            rows_KB[keys] = of_block.rows_KB
            dense_FB[dense] = of_block.dense_FB
            missing |= of_block.missing
            unknown |= of_block.unknown
        lengths_KB = np.ones(rows_KB.shape, np.int32)
        values = self._with_others(rows_KB, lengths_KB, parts) if parts else rows_KB.reshape(-1)
        if rows.others is not None:
            missing |= {
                name: rows.others[column].is_null().to_numpy()
                for name, column in self._other_columns.items()
                if rows.others[column].null_count
            }
            unknown |= self._unknown(parts)
        batch = Batch(
            dense_BF=torch.from_numpy(np.ascontiguousarray(dense_FB.T)),
            lengths_KB=torch.from_numpy(lengths_KB),
            values=torch.from_numpy(values),
            labels_BL=torch.empty(rows.num_rows, 0),
            ages=ages_of(parts.values(), self.layout),
        )
        return MarkedRows(batch, missing, unknown)

    def _with_others(self, rows_KB: Ints, lengths_KB: NDArray[np.int32], parts: Mapping[str, EncodedPart]) -> Ints:
        """The rows of all keys; the lengths of those that are in no block are filled in."""
        ids = {name: found for part in parts.values() for name, found in part.ids.items()}
        pieces = []
        for place, key in enumerate(self.layout.sparse):
            rows_n, lengths_B = ids.get(key.name, (rows_KB[place], None))
            if lengths_B is not None:
                lengths_KB[place] = lengths_B
            pieces.append(rows_n)
        return joined(pieces)

    def _unknown(self, parts: Mapping[str, EncodedPart]) -> dict[str, NDArray[np.integer[Any] | np.bool_]]:
        """By row, ids at row 0 of features that are in no block; a null list has none."""
        found: dict[str, NDArray[np.integer[Any] | np.bool_]] = {}
        for key in self.layout.sparse:
            part = parts.get(key.feature)
            if part is None or key.table not in self._id_tables:
                continue
            rows_n, lengths_B = part.ids[key.name]
            at_zero = rows_n == 0
            if at_zero.any():
                num_B = at_zero if lengths_B is None else _sums(at_zero, lengths_B)
                found[key.feature] = num_B + found.get(key.feature, 0)
        return found


def _counts(marks: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    return {name: int(of_feature.sum()) for name, of_feature in marks.items()}


def _sums(marks_n: NDArray[np.bool_], lengths_B: Ints) -> Ints:
    """How many marks each row has, whose values stand one after the other."""
    rows_n = np.repeat(np.arange(len(lengths_B)), lengths_B)
    sums_B: Ints = np.bincount(rows_n[marks_n], minlength=len(lengths_B))
    return sums_B


def concatenated(batches: Sequence[Batch], layout: InputLayout) -> Batch:
    """The rows of batches of one layout, without labels, one after the other."""
    if len(batches) == 1:
        return batches[0]
    by_key = [torch.split(batch.values, batch.count_ids()) for batch in batches]
    ages = None
    if batches[0].ages is not None:
        found = [batch.sequences(layout) for batch in batches]
        aged = [sequence.name for sequence in layout.sequences if sequence.has_ages]
        ages = torch.cat([cast(Tensor, of_batch[name].ages_N) for name in aged for of_batch in found])
    return Batch(
        dense_BF=torch.cat([batch.dense_BF for batch in batches]),
        lengths_KB=torch.cat([batch.lengths_KB for batch in batches], dim=1),
        values=torch.cat([batches[0].values[:0], *chain.from_iterable(zip(*by_key, strict=True))]),
        labels_BL=torch.cat([batch.labels_BL for batch in batches]),
        ages=ages,
    )


def side_by_side(parts: Sequence[tuple[InputLayout, Batch]], layout: InputLayout) -> Batch:
    """The features of several batches of the same rows, without labels, as one batch.

    Args:
        parts: batches with their layouts, which hold each feature of ``layout`` once.
    """
    rows: dict[str, Tensor] = {}
    lengths: dict[str, Tensor] = {}
    dense: dict[str, Tensor] = {}
    ages: dict[str, Tensor | None] = {}
    for of_part, batch in parts:
        found = torch.split(batch.values, batch.count_ids())
        for place, key in enumerate(of_part.sparse):
            rows[key.name], lengths[key.name] = found[place], batch.lengths_KB[place]
        dense |= {column.name: batch.dense_BF[:, place] for place, column in enumerate(of_part.dense)}
        ages |= {name: sequence.ages_N for name, sequence in batch.sequences(of_part).items()}
    first = parts[0][1]
    aged = [cast(Tensor, ages[sequence.name]) for sequence in layout.sequences if sequence.has_ages]
    return Batch(
        dense_BF=torch.stack([dense[c.name] for c in layout.dense], dim=1) if layout.dense else first.dense_BF,
        lengths_KB=torch.stack([lengths[key.name] for key in layout.sparse]) if layout.sparse else first.lengths_KB,
        values=torch.cat([first.values[:0], *(rows[key.name] for key in layout.sparse)]),
        labels_BL=first.labels_BL,
        ages=torch.cat(aged) if aged else None,
    )


def same(batch: Batch, other: Batch) -> bool:
    """Whether two batches hold the same rows, bit by bit, labels and groups left out."""
    pairs = [(batch.dense_BF, other.dense_BF), (batch.lengths_KB, other.lengths_KB), (batch.values, other.values)]
    if batch.ages is not None and other.ages is not None:
        pairs.append((batch.ages, other.ages))
    return all(torch.equal(one, another) for one, another in pairs) and (batch.ages is None) == (other.ages is None)

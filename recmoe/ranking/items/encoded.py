"""EncodedItems: the rows of a store as a model reads them, so that a request costs a copy per item."""

# N items, C candidates, M marks: for each feature whether it is missing, then how many of its ids are unknown

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recmoe.data.row_format import RowFormat
from recmoe.errors import DataError
from recmoe.features.blocks import BlockEncoder, EncodedRows, MarkedRows
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import OWN_SIDES
from recmoe.ranking.columns import block_encoder, columns_of_side

RECORDS = "rows.bin"
MARKS = "marks.bin"
_CHUNK_ROWS = 16_384
_MOST = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class EncodedItems:
    """N rows of the features whose columns a store holds."""

    blocks: BlockEncoder
    """Encodes rows of these features."""
    features: tuple[str, ...]
    format: RowFormat
    records_N: NDArray[Any]
    lists: Sequence[NDArray[Any]]
    """What the lists of all items hold, as the format has them."""
    marks_NM: NDArray[np.uint16]

    @classmethod
    def of_rows(cls, rows: pa.Table, encoder: FeatureEncoder) -> "EncodedItems":
        """Encode rows; DataError or SchemaError as for a request."""
        return cls.of_chunks([rows], rows.column_names, encoder, rows.num_rows)

    @classmethod
    def of_chunks(
        cls, chunks: Iterable[pa.Table], columns: Collection[str], encoder: FeatureEncoder, num_rows: int
    ) -> "EncodedItems":
        """The same of N rows that come in pieces, of which no more than one need be there at a time."""
        blocks, features = blocks_of(columns, encoder)
        format_ = RowFormat(blocks.layout)
        records_N = np.zeros(num_rows, format_.dtype)
        marks_NM = np.zeros((num_rows, 2 * len(features)), np.uint16)
        pieces: list[list[NDArray[Any]]] = [[np.zeros(0, kind)] for kind in format_.list_types]
        starts, end = [0] * len(pieces), 0
        for _, found in chain.from_iterable(encoded_chunks(rows, blocks) for rows in chunks):
            chunk = slice(end, end := end + found.batch.num_rows)
            records_N[chunk], lists = format_.pack(found.batch, starts)
            for place, values in enumerate(lists):
                pieces[place].append(values)
                starts[place] += len(values)
            for offset, marks in ((0, found.missing), (len(features), found.unknown)):
                for name, of_feature in marks.items():
                    marks_NM[chunk, offset + features.index(name)] = np.minimum(of_feature, _MOST)
        return cls(blocks, features, format_, records_N, [np.concatenate(of_list) for of_list in pieces], marks_NM)

    @classmethod
    def mapped(cls, folder: Path, rows: pa.Table, encoder: FeatureEncoder) -> "EncodedItems":
        """What ``write`` wrote of these rows, as memory that all processes share; DataError if it is damaged."""
        blocks, features = blocks_of(rows.column_names, encoder)
        format_ = RowFormat(blocks.layout)
        try:
            records_N = mapped(folder / RECORDS, format_.dtype)
            marks = mapped(folder / MARKS, "<u2")
            lists = [mapped(folder / _list(place), kind) for place, kind in enumerate(format_.list_types)]
            ends = records_N["list_start"][-1:] + records_N["list_length"][-1:]
            if len(records_N) != rows.num_rows or len(marks) != 2 * len(features) * rows.num_rows:
                raise ValueError(f"{len(records_N)} encoded rows of {rows.num_rows}")
            if len(ends) and ends[0].tolist() != [len(values) for values in lists]:
                raise ValueError("its lists end elsewhere than its rows")
        except (OSError, ValueError) as error:
            raise DataError(f"{folder}: cannot be read: {error}; build it again with recmoe items build") from error
        return cls(blocks, features, format_, records_N, lists, marks.reshape(rows.num_rows, 2 * len(features)))

    def write(self, folder: Path) -> None:
        """Into a new folder."""
        folder.mkdir()
        self.records_N.tofile(folder / RECORDS)
        self.marks_NM.astype("<u2").tofile(folder / MARKS)
        for place, values in enumerate(self.lists):
            values.tofile(folder / _list(place))

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.records_N)

    def rows(self, places_C: NDArray[np.int64]) -> EncodedRows:
        """Some rows in the order of ``blocks.layout``, and what the model does not know of them."""
        batch = self.format.unpack(self.records_N.take(places_C), self.lists)
        return EncodedRows(batch, *self.unknown_to_the_model(places_C))

    def bytes_up_to(self) -> NDArray[np.int64]:
        """Bytes of the first row, the first two, … of all N."""
        of_row = self.records_N.itemsize + self.marks_NM.itemsize * self.marks_NM.shape[1]
        bytes_N: NDArray[np.int64] = np.arange(1, len(self.records_N) + 1) * of_row
        for place, values in enumerate(self.lists):
            bytes_N += self._list_ends(place) * values.itemsize
        return bytes_N

    def head(self, num_rows: int) -> "EncodedItems":
        """A copy of the first rows."""
        ends = [int(self._list_ends(place)[num_rows - 1]) if num_rows else 0 for place in range(len(self.lists))]
        return replace(
            self,
            records_N=self.records_N[:num_rows].copy(),
            lists=[values[:end].copy() for values, end in zip(self.lists, ends, strict=True)],
            marks_NM=self.marks_NM[:num_rows].copy(),
        )

    def _list_ends(self, place: int) -> NDArray[np.int64]:
        ends_N: NDArray[np.int64] = self.records_N["list_start"][:, place] + self.records_N["list_length"][:, place]
        return ends_N

    def unknown_to_the_model(self, places_C: NDArray[np.int64]) -> tuple[dict[str, int], dict[str, int]]:
        """By feature, where there are any: missing values of some rows, and ids that training has not seen."""
        nums_M = self.marks_NM.take(places_C, axis=0).sum(axis=0, dtype=np.int64)
        if not nums_M.any():
            return {}, {}
        missing, unknown = np.split(nums_M, 2)
        return _present(self.features, missing), _present(self.features, unknown)


def _present(features: Sequence[str], nums: NDArray[np.int64]) -> dict[str, int]:
    return {name: num for name, num in zip(features, nums.tolist(), strict=True) if num}


def blocks_of(columns: Collection[str], encoder: FeatureEncoder) -> tuple[BlockEncoder, tuple[str, ...]]:
    """What encodes the features of items all of whose columns are there, and their names."""
    features = {name for name, feature in encoder.schema.features.items() if feature.side in OWN_SIDES}
    features -= {name for name, column in encoder.schema.raw_columns() if column.name not in columns}
    blocks = block_encoder(encoder, OWN_SIDES, columns_of_side(encoder, "item"), features=features)
    return blocks, tuple(name for name in encoder.schema.features if name in features)


def encoded_chunks(rows: pa.Table, blocks: BlockEncoder) -> Iterator[tuple[int, MarkedRows]]:
    """Some thousand rows at a time, each with the number of its first row; DataError with the rows at fault."""
    for first in range(0, rows.num_rows, _CHUNK_ROWS):
        chunk = rows.slice(first, _CHUNK_ROWS)
        try:
            found = blocks.encode_marked(blocks.of_table(chunk))
        except DataError as error:
            raise DataError(f"of the rows from {first} on, counted from there: {error}") from error
        yield first, found


def _list(place: int) -> str:
    return f"list_{place}.bin"


def mapped(path: Path, kind: "str | np.dtype[Any]", num: int | None = None) -> NDArray[Any]:
    """A file of numbers as memory that all processes share; ValueError where there are not so many."""
    type_, num_bytes = np.dtype(kind), path.stat().st_size
    if num is not None and num_bytes != num * type_.itemsize:
        raise ValueError(f"{path.name} has {num_bytes} bytes, not {num * type_.itemsize}")
    # An empty file cannot be mapped.
    return np.memmap(path, type_, mode="r").view(np.ndarray) if num_bytes else np.zeros(0, type_)

"""What a kind of feature hands on: its tables, its columns of the batch, what it encodes, what simple models read."""

# B rows, K sparse keys, F dense columns of a block

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recmoe.features.encodings import Encoding, EncodingConfig
from recmoe.features.layout import DenseColumn, SequenceSpec, SparseKey

Ints = NDArray[np.int64]
Floats32 = NDArray[np.float32]
Pooling = Literal["sum", "mean"]

DEFAULT_LIST_LENGTH = 10
"""Ids of a list where neither a log nor the user says how many there are."""


@dataclass(frozen=True)
class TableUse:
    """How a feature looks ids up in one table; features that share it must agree."""

    table: str
    encoding: EncodingConfig | None
    """None to take that of the other features."""
    width: int | None
    """Floats per row; None to take those of the other features."""
    pooling: Pooling | None = None
    """None where nothing is pooled: one id a row, which is itself either way, or a sequence."""
    key: str = ""
    """The part of the feature's section that says so, with a dot at the end."""
    origin: Literal["named", "own", "borrowed"] = "named"
    """Whether the table is named as one that this feature may own, is named after the feature, or must be another
    feature's."""


@dataclass(frozen=True)
class IdTable:
    """One table of ids as all its features together see it."""

    encoding: Encoding
    width: int
    pooling: Pooling


@dataclass(frozen=True)
class LayoutPart:
    """The columns of the batch that a feature fills."""

    keys: tuple[SparseKey, ...] = ()
    dense: tuple[DenseColumn, ...] = ()
    num_rows: Mapping[str, int] = field(default_factory=dict)
    """By table that holds no ids: its rows, row 0 included."""
    sequences: tuple[SequenceSpec, ...] = ()


@dataclass(frozen=True)
class EncodedPart:
    """B rows of a feature, as the batch holds them."""

    ids: Mapping[str, tuple[Ints, Ints | None]] = field(default_factory=dict)
    """By sparse key: rows of its table, and how many each row has; None where each has one."""
    dense: Mapping[str, Floats32] = field(default_factory=dict)
    """By dense column."""
    ages: Mapping[str, Floats32] = field(default_factory=dict)
    """By sequence that has times, an age per entry."""


@dataclass(frozen=True)
class RawPart:
    """B rows of a feature as simple models read them: no vocabulary has cut the rare ids. The key of a null is 0."""

    ids: Mapping[str, Ints] = field(default_factory=dict)
    """A 64-bit key per row."""
    lists: Mapping[str, tuple[Ints, Ints]] = field(default_factory=dict)
    """The keys of all rows one after the other, and how many each row has."""
    numbers: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """NaN where missing."""


class FeatureReader(Protocol):
    """Encodes the rows of one feature."""

    def encode(self, rows: pa.Table) -> EncodedPart:
        """The feature's columns of the batch.

        Raises:
            SchemaError: a column is missing or of a wrong type.
            DataError: an id lies beyond its table.
        """
        ...

    def unknown_counts(self, rows: pa.Table, num_at_zero: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        """Per key of ids: ids that training has not seen, and missing values (null, NaN).

        Args:
            rows: what was encoded.
            num_at_zero: by sparse key of the feature, ids that were encoded as row 0.
        """
        ...


@dataclass(frozen=True)
class EncodedBlock:
    """B rows of the features of a block."""

    rows_KB: Ints
    """Rows of tables, one per row and key."""
    dense_FB: Floats32
    missing: Mapping[str, NDArray[np.bool_]]
    """Rows without a value, by feature, where there are any."""
    unknown: Mapping[str, NDArray[np.bool_]]
    """Rows with an id that training has not seen, by feature, where there are any."""


class Block(Protocol):
    """Features of one kind that read columns of one type, encoded in one go as each would be by itself."""

    columns: tuple[str, ...]
    """The raw column of each feature."""
    keys: tuple[str, ...]
    """What ``rows_KB`` holds."""
    dense: tuple[str, ...]
    """What ``dense_FB`` holds."""

    def encode(self, values: pa.Array) -> EncodedBlock:
        """The features' rows.

        Args:
            values: B values per feature, column after column.

        Raises:
            DataError: an id lies beyond its table.
        """
        ...


@runtime_checkable
class JoinsBlocks(Protocol):
    """A reader of one column that can be encoded together with others."""

    @property
    def kin(self) -> Hashable:
        """Equal for readers that one block can hold."""
        ...

    @staticmethod
    def together(readers: Sequence[Any]) -> Block:
        """The block of these readers, which are kin."""
        ...


def joined(parts: list[Ints]) -> Ints:
    """The chunks of a column as one array that can be written to."""
    if len(parts) == 1:
        # Torch warns of memory that cannot be written, as Arrow's is not.
        return parts[0] if parts[0].flags.writeable else parts[0].copy()
    return np.concatenate(parts, dtype=np.int64) if parts else np.zeros(0, np.int64)


def marked(features: Sequence[str], is_there_FB: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """Where something is there, by feature, where it is at all."""
    if not is_there_FB.any():
        return {}
    return {name: is_there_B for name, is_there_B in zip(features, is_there_FB, strict=True) if is_there_B.any()}

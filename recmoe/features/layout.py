"""InputLayout: what the encoder emits, column by column, and the tables it indexes.

The boundary between features and model: the encoder fills a ``Batch`` in this order, the
model reads it in this order, and the fingerprint of both travels in checkpoints and bundles.
"""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from recmoe.sequence import HistoryEncoderConfig

Side = Literal["user", "context", "item"]
SHARED_SIDES: tuple[Side, ...] = ("user", "context")
ALL_SIDES: tuple[Side, ...] = ("user", "context", "item")
OWN_SIDES: tuple[Side, ...] = ("item",)


@dataclass(frozen=True)
class TableSpec:
    """One embedding table; row 0 is "unknown or missing"."""

    name: str
    num_rows: int
    """Rows, the unknown one included."""
    width: int
    """Floats of a row, those of the linear part included."""
    pooling: Literal["sum", "mean"]
    keys: tuple[str, ...]
    """The sparse keys that look rows up here."""
    num_linear: int = 0
    """Last floats of a row that are not part of its vector: weights of the linear part, one per tower, then padding."""

    @property
    def vector_width(self) -> int:
        """Floats of a row's vector."""
        return self.width - self.num_linear


@dataclass(frozen=True)
class SparseKey:
    """One jagged column of the batch: ids of rows in a table."""

    name: str
    feature: str
    side: Side
    table: str
    width: int
    """Floats of a row, those of the linear part included."""
    num_linear: int = 0
    """Last floats of the row, which belong to the linear part."""
    is_list: bool = False
    """Whether a row of the batch has any number of ids; otherwise it has one."""
    is_sequence: bool = False
    """Whether the ids are the entries of a sequence: each keeps a vector of its own, nothing is pooled."""

    @property
    def vector_width(self) -> int:
        """Floats of the id's vector, which the experts read."""
        return self.width - self.num_linear


@dataclass(frozen=True)
class SequenceSpec:
    """One sequence of the batch: aligned keys, and the age of each entry where the log has times.

    Example: a history of two columns, whose tables the candidate's features read too::

        history:  keys ("history#item", "history#category")   tables item_id, category_id
    """

    name: str
    """The feature."""
    side: Side
    keys: tuple[str, ...]
    """The sparse keys of its columns, in the order of the config; all have the same lengths."""
    max_length: int
    """Entries of a row at most."""
    has_ages: bool
    """Whether ``Batch.ages`` holds a number for each of its entries."""
    encoder: HistoryEncoderConfig
    """What makes one vector of its entries."""


@dataclass(frozen=True)
class DenseColumn:
    """One float column of the batch.

    A ``value`` enters the model as it is. A ``position`` is the index of the value's bucket
    plus the fraction of the bucket it has crossed, in [0, num_buckets]; the model turns it
    into a learned vector of ``width`` (piecewise-linear encoding).
    """

    name: str
    feature: str
    side: Side
    form: Literal["value", "position"]
    num_buckets: int = 0
    width: int = 1
    meaning: Hashable = field(default=None, compare=False, repr=False)
    """All that decides which float a raw value becomes: learned weights fit another column of the same meaning."""


@dataclass(frozen=True)
class InputLayout:
    """Dense columns and sparse keys in batch order; keys of one table stand together, those of sequences among them."""

    tables: tuple[TableSpec, ...]
    sparse: tuple[SparseKey, ...]
    dense: tuple[DenseColumn, ...]
    sequences: tuple[SequenceSpec, ...] = ()
    copies: tuple[str, ...] = ()
    """Whose vectors stand side by side in every row of a table, where it has several, such as one per task."""

    @property
    def pooled(self) -> tuple[SparseKey, ...]:
        """The keys that are pooled to one vector per row: all but those of sequences."""
        return tuple(key for key in self.sparse if not key.is_sequence)

    @property
    def sequence_tables(self) -> frozenset[str]:
        """The tables of which a sequence reads single rows."""
        return frozenset(key.table for key in self.sparse if key.is_sequence)

    def select(self, sides: Collection[Side]) -> "InputLayout":
        """The same layout with the columns of some sides only; all tables stay."""
        return replace(
            self,
            sparse=tuple(key for key in self.sparse if key.side in sides),
            dense=tuple(column for column in self.dense if column.side in sides),
            sequences=tuple(sequence for sequence in self.sequences if sequence.side in sides),
        )

    def of_features(self, features: Collection[str]) -> "InputLayout":
        """The same layout with the columns of some features only; all tables stay."""
        return replace(
            self,
            sparse=tuple(key for key in self.sparse if key.feature in features),
            dense=tuple(column for column in self.dense if column.feature in features),
            sequences=tuple(sequence for sequence in self.sequences if sequence.name in features),
        )

    @property
    def width(self) -> int:
        """Floats per row that enter the first level of the model, what sequences add left out."""
        return sum(key.vector_width for key in self.pooled) + sum(column.width for column in self.dense)

    def with_copies(self, copies: Sequence[str]) -> "InputLayout":
        """The same layout with rows that hold a vector for each of these names; one look-up brings them all."""
        if not copies:
            return self
        return replace(
            self,
            tables=tuple(replace(table, width=table.width * len(copies)) for table in self.tables),
            sparse=tuple(replace(key, width=key.width * len(copies)) for key in self.sparse),
            copies=tuple(copies),
        )

    def with_linear(self, num_outputs: int) -> "InputLayout":
        """The same layout with rows that end in ``num_outputs`` weights of a linear part.

        They are padded to a multiple of four floats, which the kernels of sharded tables need. Tables that only
        sequences read have none.
        """
        num_linear = -(-num_outputs // 4) * 4
        widened = {key.table for key in self.pooled}
        return replace(
            self,
            tables=tuple(
                replace(t, width=t.width + num_linear, num_linear=num_linear) if t.name in widened else t
                for t in self.tables
            ),
            sparse=tuple(
                replace(k, width=k.width + num_linear, num_linear=num_linear) if k.table in widened else k
                for k in self.sparse
            ),
        )

"""InputLayout: what the encoder emits, column by column, and the tables it indexes.

The boundary between features and model: the encoder fills a ``Batch`` in this order, the
model reads it in this order, and the fingerprint of both travels in checkpoints and bundles.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

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

    @property
    def vector_width(self) -> int:
        """Floats of the id's vector, which the experts read."""
        return self.width - self.num_linear


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


@dataclass(frozen=True)
class InputLayout:
    """Dense columns and sparse keys in batch order; keys of one table stand together."""

    tables: tuple[TableSpec, ...]
    sparse: tuple[SparseKey, ...]
    dense: tuple[DenseColumn, ...]

    def select(self, sides: Collection[Side]) -> "InputLayout":
        """The same layout with the columns of some sides only; all tables stay."""
        return InputLayout(
            tables=self.tables,
            sparse=tuple(key for key in self.sparse if key.side in sides),
            dense=tuple(column for column in self.dense if column.side in sides),
        )

    @property
    def width(self) -> int:
        """Floats per row that enter the first level of the model."""
        return sum(key.vector_width for key in self.sparse) + sum(column.width for column in self.dense)

    def with_linear(self, num_outputs: int) -> "InputLayout":
        """The same layout with rows that end in ``num_outputs`` weights of a linear part.

        They are padded to a multiple of four floats, which the kernels of sharded tables need.
        """
        num_linear = -(-num_outputs // 4) * 4
        return InputLayout(
            tables=tuple(replace(t, width=t.width + num_linear, num_linear=num_linear) for t in self.tables),
            sparse=tuple(replace(k, width=k.width + num_linear, num_linear=num_linear) for k in self.sparse),
            dense=self.dense,
        )

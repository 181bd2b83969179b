"""ColumnKind: the Arrow type of a CSV column, from all of its cells."""

# n cells of one block

import re
from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

PROBE_CELLS = 256
_KINDS = (
    pa.int64(),
    pa.bool_(),
    pa.date32(),
    pa.timestamp("s"),
    pa.timestamp("ns"),
    pa.timestamp("ns", "UTC"),
    pa.float64(),
)
"""The first one that fits all cells is the column's type."""
# 007, +41791234567 and numbers beyond 2^53 would become other ids.
_NO_FLOAT = r"^[+-]?0[0-9]|^\+[0-9]+$|^-?[0-9]{16,}$"

NOT_FINITE = "(?i:inf|infinity|nan)"
"""What Arrow reads as a float that is no finite number, after a sign or none: written alike in every style."""


@dataclass(frozen=True)
class NumberStyle:
    """How numbers are written."""

    decimal: str = "."
    thousands: str | None = None

    def plain(self, text: pa.Array) -> pa.Array | None:
        """The same numbers as Arrow reads them; None where a cell is none in this style."""
        if self == NumberStyle():
            return text
        decimal = re.escape(self.decimal)
        whole = "[0-9]+"
        if self.thousands is not None:
            whole = f"(?:[0-9]+|[0-9]{{1,3}}(?:{re.escape(self.thousands)}[0-9]{{3}})+)"
        finite = f"(?:{whole}(?:{decimal}[0-9]*)?|{decimal}[0-9]+)(?:[eE][+-]?[0-9]+)?"
        pattern = f"^[+-]?(?:{finite}|{NOT_FINITE})$"
        if not _all(pc.match_substring_regex(text, pattern)):
            return None
        if self.thousands is not None:
            text = pc.replace_substring(text, self.thousands, "")
        return pc.replace_substring(text, self.decimal, ".")


class ColumnKind:
    """What the cells of a column can be read as; a cell that does not fit widens the type.

    Integers that are not written as Arrow would write them ("007", "+7") and integers beyond int64 stay text,
    for they are ids: so does a column that mixes integers beyond 2^53 with fractions.

    Args:
        style: how numbers are written.
        nulls: cells that are null unless the column is text.
    """

    def __init__(self, style: NumberStyle, nulls: Collection[str], *, is_text: bool = False) -> None:
        self._style = style
        self._nulls = pa.array(sorted(nulls), pa.string())
        self._open: tuple[pa.DataType, ...] = () if is_text else _KINDS
        self._has_values = is_text
        self._has_cells = is_text

    @property
    def type(self) -> pa.DataType:
        """The type that all cells so far fit; null without a cell."""
        if not self._has_cells:
            return pa.null()
        return self._open[0] if self._open and self._has_values else pa.string()

    @property
    def is_vague(self) -> bool:
        """Whether there are no cells but such as may be null: text, unless other files say what it is."""
        return self._has_cells and not self._has_values

    def learn(self, cells: pa.Array) -> None:
        """Take some cells in."""
        self._has_cells = self._has_cells or cells.null_count < len(cells)
        if not self._open:
            return
        cells = self._without_nulls(cells)
        if cells.null_count < len(cells):
            self._has_values = True
            # Arrow is slow to say that text is none of a kind, so the first cells are asked before all are.
            probe = cells.drop_null().slice(0, PROBE_CELLS)
            self._open = tuple(
                kind
                for kind in self._open
                if self._read(probe, kind) is not None and self._read(cells, kind) is not None
            )

    def read(self, cells: pa.Array) -> pa.Array:
        """Cells that were taken in, in the column's type."""
        if pa.types.is_string(self.type):
            return cells
        values = self._read(self._without_nulls(cells), self.type)
        assert values is not None
        return values

    def _without_nulls(self, cells: pa.Array) -> pa.Array:
        return pc.if_else(pc.is_in(cells, value_set=self._nulls), pa.scalar(None, cells.type), cells)

    def _read(self, cells: pa.Array, kind: pa.DataType) -> pa.Array | None:
        if pa.types.is_null(kind):
            return pa.nulls(len(cells))
        text = pc.utf8_trim_whitespace(cells)
        if pa.types.is_int64(kind):
            return self._integers(text)
        if pa.types.is_float64(kind):
            return self._floats(text)
        return _cast(text, kind)

    def _integers(self, text: pa.Array) -> pa.Array | None:
        plain = self._style.plain(text)
        values = None if plain is None else _cast(plain, pa.int64())
        return values if values is not None and _all(pc.equal(values.cast(pa.string()), plain)) else None

    def _floats(self, text: pa.Array) -> pa.Array | None:
        plain = self._style.plain(text)
        if plain is None or pc.any(pc.match_substring_regex(plain, _NO_FLOAT)).as_py():
            return None
        return _cast(plain, pa.float64())


def typed(texts: Collection[str | None]) -> pa.Array:
    """Some texts in the type that the cells of a CSV column would have."""
    cells = pa.array(texts, pa.string())
    kind = ColumnKind(NumberStyle(), ())
    kind.learn(cells)
    return kind.read(cells)


def _cast(text: pa.Array, kind: pa.DataType) -> pa.Array | None:
    try:
        return text.cast(kind)
    except pa.ArrowInvalid:
        return None


def _all(is_fit: pa.Array) -> bool:
    return bool(pc.all(is_fit, min_count=0).as_py())

"""RawColumn: a column of the log as a feature reads it."""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from recmoe.errors import SchemaError
from recmoe.features.columns import find_column, is_list_type
from recmoe.features.id_keys import is_id_type, is_text_type
from recmoe.features.null_marks import holds_marks_only
from recmoe.features.times import is_time_type
from recmoe.features.transforms import is_number_type

ONE_ID = "declare it as kind: id"
NUMBER = "declare it as kind: numeric, or as kind: id where its numbers are names"


@dataclass(frozen=True)
class RawColumn:
    """What a feature reads from the log, and what it expects there."""

    name: str
    holds: Literal["id", "ids", "number", "time", "times"]
    """One id a row, a list of ids, one number, one time, or a list of times."""
    separator: str | None = None
    """Between the elements of a list that is one string."""
    max_length: int | None = None
    """Elements of a list that are read, the last ones; all by default."""
    no_list_hint: str = ONE_ID
    """What to do about a column that holds no lists of ids where it should."""

    @property
    def is_id(self) -> bool:
        """Whether its values name something: one or several a row."""
        return self.holds in ("id", "ids")

    @property
    def is_list(self) -> bool:
        """Whether its values are lists, not texts that hold several ids."""
        return self.holds in ("ids", "times") and self.separator is None

    @property
    def type_of_nulls(self) -> pa.DataType:
        """The type of a column that held no value in training."""
        if self.holds in ("number", "time"):
            return pa.float64()
        element = pa.string() if self.is_id else pa.float64()
        return pa.list_(element) if self.is_list else element if self.holds == "id" else pa.string()

    def read(self, table: pa.Table, *, feature: str) -> pa.ChunkedArray:
        """The column; SchemaError if it is missing or of a type that the feature cannot read.

        For a number, text that holds nothing but marks for null is a column without numbers.
        """
        column = find_column(table, self.name, needed_by=f"feature {feature!r}")
        if self.holds == "number" and is_text_type(column.type) and holds_marks_only(column):
            return pa.chunked_array([pa.nulls(len(column))])
        problem = self.type_problem(column.type)
        if problem is not None:
            raise SchemaError(f"{self.where(feature)}: {problem}")
        return column

    def where(self, feature: str) -> str:
        """The column in words, for errors."""
        return f"column {self.name!r} of feature {feature!r}"

    def type_problem(self, kind: pa.DataType) -> str | None:
        """What is wrong with the type of the column, and what to do; None where the feature can read it."""
        if self.holds == "id":
            if is_id_type(kind):
                return None
            hint = "declare it as kind: id_list" if is_list_type(kind) else "make a column of strings or integers of it"
            return f"expected one id per row, found {kind}; {hint}"
        if self.holds in ("ids", "times"):
            return self._list_problem(kind)
        if self.holds == "time":
            return None if is_time_type(kind) else f"expected a time, found {kind}; give numbers or timestamps"
        if is_number_type(kind):
            return None
        return f"expected a number, found {kind}; convert the column, or declare it as kind: id"

    def _list_problem(self, kind: pa.DataType) -> str | None:
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if self.holds == "times":
            if pa.types.is_null(kind) or (is_list_type(kind) and is_time_type(kind.value_type)):
                return None
            if is_text_type(kind) and self.separator is not None:
                return None
            return f"expected a list of times, found {kind}; give lists of numbers or timestamps"
        if pa.types.is_null(kind) or (is_list_type(kind) and is_id_type(kind.value_type)):
            return None
        if is_text_type(kind):
            if self.separator is not None:
                return None
            return f"expected a list of ids, found {kind}; give the separator of its parts, or {self.no_list_hint}"
        if is_number_type(kind) and self.no_list_hint == ONE_ID:
            return f"expected a list of ids, found {kind}; {NUMBER}"
        return f"expected a list of ids, found {kind}; {self.no_list_hint}"

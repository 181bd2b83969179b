"""columns: raw columns of a table by name and type, with errors that name what needs them."""

import difflib
from collections.abc import Iterable, Sequence

import pyarrow as pa

from recmoe.errors import SchemaError
from recmoe.features.id_keys import canonical, is_id_type, is_text_type
from recmoe.features.null_marks import holds_marks_only
from recmoe.features.schema import FeatureConfig, IdFeature, IdListFeature, NumericFeature
from recmoe.features.transforms import is_number_type


def find_column(table: pa.Table, name: str, *, needed_by: str) -> pa.ChunkedArray:
    """A column of a table; SchemaError with what is there if it is not."""
    places = [place for place, found in enumerate(table.column_names) if found == name]
    if len(places) == 1:
        return table.column(places[0])
    if places:
        raise SchemaError(f"column {name!r}, needed by {needed_by}, is there {len(places)} times; rename the others")
    raise SchemaError(
        f"column {name!r} is missing, needed by {needed_by}; {_did_you_mean(name, table.column_names)}"
        f"found: {shown_names(table.column_names) or 'no columns'}"
    )


def shown_names(names: Iterable[str]) -> str:
    """Names of columns on one line."""
    return ", ".join(name if name.isprintable() else repr(name) for name in names)


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}? " if near else ""


def feature_column(table: pa.Table, name: str, feature: FeatureConfig) -> pa.ChunkedArray:
    """The column of a feature; SchemaError if it is missing or of a type that the feature cannot read.

    For a number, text that holds nothing but marks for null is a column without numbers.
    """
    column = find_column(table, feature.column or name, needed_by=f"feature {name!r}")
    if isinstance(feature, NumericFeature) and is_text_type(column.type) and holds_marks_only(column):
        return pa.chunked_array([pa.nulls(len(column))])
    problem = _type_problem(column.type, feature)
    if problem is not None:
        raise SchemaError(f"column {feature.column or name!r} of feature {name!r}: {problem}")
    return column


def id_column_of(table: pa.Table, name: str, *, needed_by: str) -> pa.ChunkedArray:
    """A column that holds one id per row; SchemaError if it does not."""
    column = find_column(table, name, needed_by=needed_by)
    if not is_id_type(column.type):
        raise SchemaError(f"column {name!r}, needed by {needed_by}: expected one id per row, found {column.type}")
    return column


def _type_problem(kind: pa.DataType, feature: FeatureConfig) -> str | None:
    """What is wrong with the type of a feature's column, and what to do."""
    if isinstance(feature, IdFeature):
        if is_id_type(kind):
            return None
        hint = "declare it as kind: id_list" if is_list_type(kind) else "make a column of strings or integers of it"
        return f"expected one id per row, found {kind}; {hint}"
    if isinstance(feature, IdListFeature):
        return _list_problem(kind, feature)
    if is_number_type(kind):
        return None
    return f"expected a number, found {kind}; convert the column, or declare it as kind: id"


def _list_problem(kind: pa.DataType, feature: IdListFeature) -> str | None:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind) or (is_list_type(kind) and is_id_type(kind.value_type)):
        return None
    if is_text_type(kind):
        if feature.separator is not None:
            return None
        return f"expected a list of ids, found {kind}; give the separator of its parts, or declare it as kind: id"
    hint = "kind: numeric, or as kind: id where its numbers are names" if is_number_type(kind) else "kind: id"
    return f"expected a list of ids, found {kind}; declare it as {hint}"


def is_list_type(kind: pa.DataType) -> bool:
    """Whether an Arrow type is a list of any form."""
    types = pa.types
    return bool(
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )


def has_fractions(column: pa.ChunkedArray) -> bool | None:
    """Whether a column of floats, or of lists of them, holds one that is no integer; None if it holds none at all."""
    is_empty = True
    for chunk in column.chunks:
        values = chunk.dictionary_decode() if pa.types.is_dictionary(chunk.type) else chunk
        values = values.flatten() if is_list_type(values.type) else values
        if not pa.types.is_floating(values.type):
            return None
        ids = canonical(values)
        if not pa.types.is_int64(ids.type):
            return True
        is_empty = is_empty and ids.null_count == len(ids)
    return None if is_empty else False


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type without how it is stored: no dictionaries, no large offsets, no views."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if is_text_type(kind):
        return pa.string()
    if is_list_type(kind):
        return pa.list_(plain_type(kind.value_type))
    return kind

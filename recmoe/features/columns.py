"""columns: raw columns of a table by name and type, with errors that name what needs them."""

import difflib
from collections.abc import Iterable, Sequence

import pyarrow as pa

from recmoe.errors import SchemaError
from recmoe.features.id_keys import canonical, is_id_type, is_text_type


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


def id_column_of(table: pa.Table, name: str, *, needed_by: str) -> pa.ChunkedArray:
    """A column that holds one id per row; SchemaError if it does not."""
    column = find_column(table, name, needed_by=needed_by)
    if not is_id_type(column.type):
        raise SchemaError(f"column {name!r}, needed by {needed_by}: expected one id per row, found {column.type}")
    return column


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

"""checked_rows(): a table of items or users as a store keeps it, or what is wrong with it by column and row."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recmoe.errors import DataError, SchemaError
from recmoe.features.arrow_ids import IdBlock
from recmoe.features.columns import find_column, is_list_type, plain_type, shown_names
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.id_keys import UInt64s, is_id_type, is_text_type
from recmoe.ranking.columns import block_encoder, columns_of_side
from recmoe.ranking.fitting import first_unfit
from recmoe.ranking.items.encoded import encoded_chunks
from recmoe.ranking.items.store import StoredSide
from recmoe.ranking.values import RequestColumn


def item_column(encoder: FeatureEncoder) -> str:
    """The column that names an item; SchemaError where the model has none."""
    item = encoder.schema.item
    if item is None:
        raise SchemaError(
            "the model does not say which column names an item, so none can be looked up; set inputs.item in its config"
        )
    return item


def user_columns(columns: Mapping[str, RequestColumn]) -> list[str]:
    """The columns of a user that may name the user: single ids."""
    return [
        name
        for name, column in columns.items()
        if column.is_id and column.separator is None and not is_list_type(column.type)
    ]


def id_column(encoder: FeatureEncoder, side: StoredSide, named: str | None = None) -> str:
    """The column that names a row of a side.

    Args:
        named: the one that someone has chosen, for users; by default the only id that the model has of a user.

    Raises:
        SchemaError: the model does not say which column names an item, or has no id of a user, or several.
    """
    if side == "item":
        return item_column(encoder)
    if named is not None:
        return named
    found = user_columns(columns_of_side(encoder, "user"))
    if len(found) != 1:
        has = f"has several ids of a user: {shown_names(found)}" if found else "has no id of a user"
        raise SchemaError(f"the model {has}; name the column of ids with --by COLUMN")
    return found[0]


def checked_rows(
    rows: pa.Table, encoder: FeatureEncoder, side: StoredSide = "item", *, column: str
) -> tuple[pa.Table, UInt64s]:
    """The table with the model's columns in the types of requests, and the key of each row's id.

    Columns that the model does not read stay as they are: a later model may.

    Args:
        rows: N rows, one per item or user.
        column: of their ids.

    Raises:
        SchemaError: there is no column of ids, no other column that the model reads, or one of a wrong type.
        DataError: an id is missing or there twice, or a value does not fit; column and row are named.
    """
    if not rows.num_rows:
        raise DataError(f"the table of {side}s has no rows; give one row per {side}")
    found = find_column(rows, column, needed_by=f"the store of {side}s, as the id of a row")
    if not is_id_type(found.type):
        raise SchemaError(f"column {column!r}: expected one id per row, found {found.type}")
    _check_types(rows, encoder, side)
    columns = columns_of_side(encoder, side)
    types = {column: plain_type(found.type), **{name: of_requests.type for name, of_requests in columns.items()}}
    for name, type_ in types.items():
        if name in rows.column_names:
            place = rows.column_names.index(name)
            rows = rows.set_column(place, name, _converted(rows.column(name), name, type_))
    if not any(name in rows.column_names for name in columns if name != column):
        raise SchemaError(
            f"none of the columns that the model reads of {_a(side)} is there ({shown_names(sorted(columns))}); "
            f"found: {shown_names(rows.column_names)}"
        )
    return rows.combine_chunks(), _keys(rows.column(column), column, side)


def check_encoding(rows: pa.Table, encoder: FeatureEncoder, side: StoredSide) -> None:
    """DataError at the first of ``checked_rows`` that the model cannot read, such as lists of unequal lengths."""
    columns = columns_of_side(encoder, side)
    for _ in encoded_chunks(nulls_where_absent(rows, columns), block_encoder(encoder, (side,), columns)):
        pass


def lacking(names: Sequence[str], columns: Iterable[str]) -> list[str]:
    """Columns that the model reads and a table does not hold: requests have to give them."""
    return [name for name in columns if name not in names]


def _check_types(rows: pa.Table, encoder: FeatureEncoder, side: StoredSide) -> None:
    """SchemaError at the first column whose type its feature cannot read."""
    for name, column in encoder.schema.raw_columns():
        if encoder.schema.features[name].side == side and column.name in rows.column_names:
            column.read(rows, feature=name)


def _converted(column: pa.ChunkedArray, name: str, type_: pa.DataType) -> pa.ChunkedArray:
    """The column in the type that requests give it in, with room for any amount of text; DataError with the row."""
    try:
        return column.cast(type_).cast(_large(type_))
    except pa.ArrowException as error:
        row = first_unfit(column, lambda values: values.cast(type_))
        raise DataError(
            f"column {name!r}, row {row}: {column[row].as_py()!r} cannot be read as {type_}, which it was in training; "
            "mend the value or the column's type"
        ) from error


def _large(type_: pa.DataType) -> pa.DataType:
    """The type with offsets of 64 bits."""
    if is_list_type(type_):
        return pa.large_list(_large(type_.value_type))
    return pa.large_string() if is_text_type(type_) else type_


def _keys(ids: pa.ChunkedArray, column: str, side: StoredSide) -> UInt64s:
    """A key per row; DataError where an id is missing, or of two rows."""
    block = IdBlock(pa.concat_arrays(ids.chunks), 1)
    is_missing_N = block.is_missing_KB[0]
    if is_missing_N.any():
        row = int(is_missing_N.argmax())
        raise DataError(f"column {column!r}, row {row}: {_a(side)} without an id; leave the row out")
    keys_N: UInt64s = block.keys_KB[0]
    order_N = np.argsort(keys_N, kind="stable")
    is_again_N = keys_N[order_N][1:] == keys_N[order_N][:-1]
    if is_again_N.any():
        place = int(is_again_N.argmax())
        before, again = order_N[place : place + 2].tolist()
        num = int(is_again_N.sum())
        raise DataError(
            f"column {column!r}: rows {before} and {again} are of one {side}, {ids[again].as_py()!r}"
            f"{f', and {num - 1} more rows are of {side}s seen before' if num > 1 else ''}; keep one row per {side}"
        )
    return keys_N


def _a(side: StoredSide) -> str:
    return f"an {side}" if side == "item" else f"a {side}"


def nulls_where_absent(rows: pa.Table, columns: Mapping[str, RequestColumn]) -> pa.Table:
    """The rows with a column of nulls for each that they lack."""
    for name in lacking(rows.column_names, columns):
        rows = rows.append_column(name, pa.nulls(rows.num_rows, columns[name].type))
    return rows


def taken(column: pa.ChunkedArray, places: pa.Array, type_: pa.DataType) -> pa.Array:
    """Values of some rows, null where a place is, in a type of requests."""
    return pc.take(column.chunk(0), places).cast(type_)

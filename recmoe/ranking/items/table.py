"""checked_items(): a table of items as a store keeps it, or what is wrong with it by column and row."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recmoe.errors import DataError, SchemaError
from recmoe.features.arrow_ids import IdBlock
from recmoe.features.columns import find_column, is_list_type, shown_names
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.id_keys import UInt64s, is_text_type
from recmoe.features.layout import OWN_SIDES
from recmoe.ranking.fitting import first_unfit
from recmoe.ranking.values import RequestColumn


def item_column(encoder: FeatureEncoder) -> str:
    """The column that names an item; SchemaError where the model has none."""
    item = encoder.schema.item
    if item is None:
        raise SchemaError(
            "the model does not say which column names an item, so none can be looked up; set inputs.item in its config"
        )
    return item


def checked_items(
    items: pa.Table, encoder: FeatureEncoder, columns: dict[str, RequestColumn]
) -> tuple[pa.Table, UInt64s]:
    """The table with the model's columns in the types of requests, and the key of each row's id.

    Columns that the model does not read stay as they are: a later model may.

    Args:
        items: N rows, one per item.
        columns: that a candidate of a request may give.

    Raises:
        SchemaError: there is no column of ids, no other column that the model reads, or one of a wrong type.
        DataError: an id is missing or there twice, or a value does not fit; column and row are named.
    """
    item = item_column(encoder)
    if not items.num_rows:
        raise DataError("the table of items has no rows; give one row per item")
    find_column(items, item, needed_by="the store of items, as the id of a row")
    _check_types(items, encoder)
    for name, column in columns.items():
        if name in items.column_names:
            place = items.column_names.index(name)
            items = items.set_column(place, name, _converted(items.column(name), name, column.type))
    if not any(name in items.column_names for name in columns if name != item):
        raise SchemaError(
            f"none of the columns that the model reads of an item is there ({shown_names(sorted(columns))}); "
            f"found: {shown_names(items.column_names)}"
        )
    return items, _keys(items.column(item), item)


def lacking(items: Sequence[str], columns: dict[str, RequestColumn]) -> list[str]:
    """Columns of items that the model reads and a table does not hold: requests have to give them."""
    return [name for name in columns if name not in items]


def _check_types(items: pa.Table, encoder: FeatureEncoder) -> None:
    """SchemaError at the first column whose type its feature cannot read."""
    for name, column in encoder.schema.raw_columns():
        if encoder.schema.features[name].side in OWN_SIDES and column.name in items.column_names:
            column.read(items, feature=name)


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


def _keys(ids: pa.ChunkedArray, item: str) -> UInt64s:
    """A key per row; DataError where an id is missing, or of two rows."""
    block = IdBlock(pa.concat_arrays(ids.chunks), 1)
    is_missing_N = block.is_missing_KB[0]
    if is_missing_N.any():
        raise DataError(f"column {item!r}, row {int(is_missing_N.argmax())}: an item without an id; leave the row out")
    keys_N: UInt64s = block.keys_KB[0]
    order_N = np.argsort(keys_N, kind="stable")
    is_again_N = keys_N[order_N][1:] == keys_N[order_N][:-1]
    if is_again_N.any():
        place = int(is_again_N.argmax())
        before, again = order_N[place : place + 2].tolist()
        num = int(is_again_N.sum())
        raise DataError(
            f"column {item!r}: rows {before} and {again} are of one item, {ids[again].as_py()!r}"
            f"{f', and {num - 1} more rows are of items seen before' if num > 1 else ''}; keep one row per item"
        )
    return keys_N


def nulls_where_absent(rows: pa.Table, columns: dict[str, RequestColumn]) -> pa.Table:
    """The rows with a column of nulls for each that they lack."""
    for name in lacking(rows.column_names, columns):
        rows = rows.append_column(name, pa.nulls(rows.num_rows, columns[name].type))
    return rows


def taken(column: pa.ChunkedArray, places: pa.Array, type_: pa.DataType) -> pa.Array:
    """Values of some rows, null where a place is, in a type of requests."""
    return pc.take(column.chunk(0), places).cast(type_)

"""arrow_ids: Arrow columns of ids, single or in lists, as distinct ids and places, without Python objects."""

# n ids of one chunk, B rows, K columns

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recmoe.features.id_keys import UInt64s, canonical, integers, is_text_type, keys


@dataclass(frozen=True)
class IdValues:
    """The ids of one chunk; strings are stored once per distinct value, so that work on them is too.

    Example: the strings ["b", "a", null, "b"] are::

        distinct ["b", "a"]    places [0, 1, -1, 0]
    """

    distinct: pa.Array
    """Canonical ids: int64 or strings, null where missing."""
    places: NDArray[np.int64] | None
    """Where each value stands in ``distinct``, -1 for null; None if ``distinct`` holds one entry per value."""

    def spread(self, rows: NDArray[np.int64], *, missing: int) -> NDArray[np.int64]:
        """A number per distinct id as a number per value, ``missing`` where there is no id."""
        if self.distinct.null_count:
            is_missing = self.distinct.is_null().to_numpy(zero_copy_only=False)
            rows = np.where(is_missing, missing, rows)
        if self.places is None:
            return rows
        # The entry added last is the one that place -1 finds.
        return np.append(rows, missing)[self.places]

    @property
    def is_missing(self) -> NDArray[np.bool_]:
        """Which values hold no id."""
        return self.spread(np.zeros(len(self.distinct), np.int64), missing=1).astype(np.bool_)

    def keep(self, kept: NDArray[np.bool_]) -> "IdValues":
        """The values at the marked places only."""
        if self.places is None:
            return IdValues(distinct=self.distinct.filter(pa.array(kept)), places=None)
        return IdValues(distinct=self.distinct, places=self.places[kept])


class IdBlock:
    """K columns of B ids each, all of one type.

    Args:
        values: column after column.
        num_columns: K.
    """

    def __init__(self, values: pa.Array, num_columns: int) -> None:
        self._ids = id_values(values)
        self.shape = (num_columns, len(values) // num_columns)

    @cached_property
    def is_missing_KB(self) -> NDArray[np.bool_]:
        """Where there is no id."""
        return self._ids.is_missing.reshape(self.shape)

    @cached_property
    def keys_KB(self) -> UInt64s:
        """The key of each id (``id_keys.keys``); of a missing one, an arbitrary one."""
        return self._ids.spread(keys(self._ids.distinct).view(np.int64), missing=0).reshape(self.shape).view(np.uint64)

    @cached_property
    def integers_KB(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The value of each id that is an integer, and which are; a missing one is not."""
        values, is_integer = integers(self._ids.distinct)
        spread, found = self._ids.spread(values, missing=0), self._ids.spread(is_integer.astype(np.int64), missing=0)
        return spread.reshape(self.shape), found.astype(np.bool_).reshape(self.shape)

    def shown(self, column: int, row: int) -> str:
        """One of the ids, for errors."""
        place = column * self.shape[1] + row
        distinct = place if self._ids.places is None else int(self._ids.places[place])
        return repr(self._ids.distinct[distinct].as_py())


def id_values(values: pa.Array) -> IdValues:
    """The ids of an Arrow array of any id type."""
    if pa.types.is_float16(values.type):
        # Arrow cannot tell apart values of this type.
        values = values.cast(pa.float32())
    # A small slice may carry the dictionary of a whole file.
    if pa.types.is_dictionary(values.type) and len(values.dictionary) > 2 * len(values):
        values = values.dictionary_decode()
    if not pa.types.is_dictionary(values.type):
        if pa.types.is_integer(values.type) or pa.types.is_null(values.type):
            return IdValues(distinct=canonical(values), places=None)
        if pa.types.is_string_view(values.type):
            values = values.cast(pa.large_string())
        values = values.dictionary_encode()
    places = values.indices.cast(pa.int64())
    if places.null_count:
        places = places.fill_null(-1)
    return IdValues(distinct=canonical(values.dictionary), places=places.to_numpy())


def id_column(column: pa.ChunkedArray) -> Iterator[IdValues]:
    """The ids of a column, chunk by chunk: each chunk may have a dictionary of its own."""
    for chunk in column.chunks:
        yield id_values(chunk)


def id_list_column(
    column: pa.ChunkedArray, *, separator: str | None, max_length: int | None, keep_missing: bool = False
) -> Iterator[tuple[IdValues, NDArray[np.int64]]]:
    """The ids of a column of lists, chunk by chunk, and how many each row has.

    A null list is an empty one, and so is an empty string; null and NaN elements are dropped, and empty parts of a
    separated string. Of more than ``max_length`` ids the last ones stay.

    Args:
        keep_missing: keep elements without an id, as those of a list that another one is aligned to.

    Example: ``[["a", "b"], null, ["c", null, "d"]]`` with ``max_length=1``::

        ids b d    lengths [1, 0, 1]
    """
    for chunk in column.chunks:
        ids, lengths_B = _list_chunk(chunk, separator, null_if_blank=keep_missing)
        is_missing = ids.is_missing
        if is_missing.any() and not keep_missing:
            rows_n = np.repeat(np.arange(len(lengths_B)), lengths_B)
            lengths_B = np.bincount(rows_n[~is_missing], minlength=len(lengths_B))
            ids = ids.keep(~is_missing)
        if max_length is not None and lengths_B.max(initial=0) > max_length:
            ids = ids.keep(is_among_last(lengths_B, max_length))
            lengths_B = np.minimum(lengths_B, max_length)
        yield ids, lengths_B


def is_among_last(lengths_B: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Which elements of lists, one after the other, are among the last ones of their list."""
    ends_n = np.repeat(np.cumsum(lengths_B), lengths_B)
    is_last: NDArray[np.bool_] = ends_n - np.arange(len(ends_n)) <= count
    return is_last


def _list_chunk(chunk: pa.Array, separator: str | None, *, null_if_blank: bool) -> tuple[IdValues, NDArray[np.int64]]:
    if pa.types.is_null(chunk.type):
        return id_values(pa.nulls(0)), np.zeros(len(chunk), np.int64)
    if pa.types.is_dictionary(chunk.type):
        chunk = chunk.dictionary_decode()
    is_text = is_text_type(chunk.type)
    if is_text:
        text = null_where_blank(chunk) if null_if_blank else chunk.cast(pa.large_string())
        chunk = pc.split_pattern(text, separator)
    # flatten() honours slices and skips what a null list hides, .values does neither.
    ids = id_values(chunk.flatten())
    lengths_B = pc.if_else(chunk.is_valid(), pc.list_value_length(chunk), 0).cast(pa.int64()).to_numpy()
    if is_text:
        ids = IdValues(distinct=null_where_blank(ids.distinct), places=ids.places)
    return ids, lengths_B


def null_where_blank(text: pa.Array) -> pa.Array:
    """Texts without the blanks around them, null where nothing is left."""
    text = pc.utf8_trim_whitespace(text.cast(pa.large_string()))
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, text.type), text)

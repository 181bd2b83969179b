"""label_values: label columns → floats, checked: a wrong label is an error, a missing one is NaN."""

# B rows, L label columns

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from recmoe.errors import DataError, SchemaError
from recmoe.features.columns import find_column
from recmoe.features.id_keys import is_text_type
from recmoe.features.labels import LabelColumn, LabelValue, Levels, Positive
from recmoe.features.null_marks import holds_marks_only
from recmoe.features.transforms import Floats, as_floats, is_number_type


def encode_labels(table: pa.Table, labels: Sequence[LabelColumn], *, first_row: int = 0) -> Tensor:
    """labels_BL: float32, NaN where a label is missing.

    Args:
        table: B rows.
        labels: the columns, in the order of L.
        first_row: number of the table's first row, for errors.

    Raises:
        SchemaError: a column is missing or holds no numbers where it must.
        DataError: a binary label is not 0 or 1, a real one is not finite, or a conversion lacks its click.
    """
    columns_LB = {label.name: _floats(table, label) for label in labels}
    for label in labels:
        _check_values(table, label, columns_LB[label.name], first_row)
    for label in labels:
        if label.implies is not None:
            _check_implied(label, columns_LB, first_row)
    labels_BL = np.empty((table.num_rows, len(labels)), np.float32)
    for index, label in enumerate(labels):
        labels_BL[:, index] = columns_LB[label.name]
    return torch.from_numpy(labels_BL)


def _floats(table: pa.Table, label: LabelColumn) -> Floats:
    column = find_column(table, label.column, needed_by=label.needed_by)
    kind = column.type
    if label.positive is not None:
        return _positive_floats(column, label.column, label.positive)
    if label.levels is not None:
        return _level_floats(column, label.column, label.levels)
    if is_number_type(kind):
        return as_floats(column)
    is_text = is_text_type(kind.value_type if pa.types.is_dictionary(kind) else kind)
    if is_text and holds_marks_only(column):
        return np.full(len(column), np.nan)
    if not (label.is_binary and is_text):
        expected = "0, 1, true or false" if label.is_binary else "a number"
        hint = ", or say with positive: which values count as 1" if label.is_binary else ""
        raise SchemaError(f"label column {label.column!r}: expected {expected}, found {kind}; convert the column{hint}")
    # Infinity marks text that is no label; the check of values reports it with its row.
    text = pc.utf8_lower(pc.utf8_trim_whitespace(column.cast(pa.string())))
    place = pc.index_in(text, value_set=pa.array(["0", "1", "false", "true"]))
    values = pc.if_else(pc.is_null(place), np.inf, pc.bit_wise_and(place, 1).cast(pa.float64()))
    return as_floats(pc.if_else(pc.is_null(text), pa.scalar(None, pa.float64()), values))


def _positive_floats(column: pa.ChunkedArray, name: str, positive: Positive) -> Floats:
    """1 where a value counts as positive, 0 elsewhere, NaN where it is missing or an empty text."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if is_text_type(kind):
        if not positive.values:
            raise SchemaError(f"label column {name!r}: {positive} needs numbers, found {kind}; convert the column")
        text = pc.utf8_trim_whitespace(column.cast(pa.string()))
        is_one = pc.is_in(text, value_set=pa.array([_text(value) for value in positive.values]))
        return as_floats(pc.if_else(pc.not_equal(text, ""), is_one, pa.scalar(None, pa.bool_())))
    if not is_number_type(kind):
        raise SchemaError(f"label column {name!r}: expected numbers or text, found {kind}; convert the column")
    values_B = as_floats(column)
    if positive.at_least is not None:
        is_one_B = values_B >= positive.at_least
    elif positive.above is not None:
        is_one_B = values_B > positive.above
    else:
        is_one_B = np.isin(values_B, [_number(value, name, kind, given_as="positive") for value in positive.values])
    return np.where(np.isnan(values_B), np.nan, is_one_B)


def _level_floats(column: pa.ChunkedArray, name: str, levels: Levels) -> Floats:
    """What the values stand for; infinity marks those that are no level, NaN those that are missing or empty texts."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    numbers_K = np.array([*levels.numbers, np.inf])
    if is_text_type(kind):
        text = pc.utf8_trim_whitespace(column.cast(pa.string()))
        place = pc.index_in(text, value_set=pa.array([_text(value) for value, _ in levels.pairs]))
        place_B = pc.fill_null(place, len(levels.pairs)).to_numpy().astype(np.int64)
        is_missing_B = pc.fill_null(pc.equal(text, ""), True).to_numpy(zero_copy_only=False)
        return np.where(is_missing_B, np.nan, numbers_K[place_B])
    if not is_number_type(kind):
        raise SchemaError(f"label column {name!r}: expected numbers or text, found {kind}; convert the column")
    values_B = as_floats(column)
    found_B = np.full(len(values_B), np.inf)
    for value, number in levels.pairs:
        found_B[values_B == _number(value, name, kind, given_as="level")] = number
    return np.where(np.isnan(values_B), np.nan, found_B)


def _text(value: LabelValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(value: LabelValue, name: str, kind: pa.DataType, *, given_as: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise SchemaError(
            f"label column {name!r} holds {kind}, in which {value!r} does not occur; give a number as {given_as}"
        ) from None


def _check_values(table: pa.Table, label: LabelColumn, values_B: Floats, first_row: int) -> None:
    if label.is_binary:
        is_wrong_B: NDArray[np.bool_] = ~((values_B == 0) | (values_B == 1) | np.isnan(values_B))
    else:
        with np.errstate(over="ignore"):
            is_wrong_B = np.isinf(values_B.astype(np.float32))
        if label.is_amount:
            is_wrong_B |= values_B < 0
        if label.use == "position":
            is_wrong_B |= (values_B < 0) | (values_B % 1 > 0)
    if not is_wrong_B.any():
        return
    row = int(is_wrong_B.argmax())
    value = table.column(label.column)[row].as_py()
    where = f"label column {label.column!r} holds {value!r} in row {first_row + row}"
    if label.is_binary:
        raise DataError(
            f"{where}; a binary label is 0, 1, true, false or null: mend it, say with positive: which values count as "
            "1, or declare a regression task"
        )
    if label.use == "position":
        raise DataError(f"{where}; a position is a whole number, 0 or more, or null: mend it")
    if label.levels is not None:
        raise DataError(f"{where}, which is none of the levels {label.levels}: name it in levels, or mend it")
    if label.is_amount and value < 0:
        raise DataError(f"{where}; an amount is 0 or more: mend it, or declare a regression task")
    raise DataError(f"{where}; a label must be a finite number or null: mend it")


def _check_implied(label: LabelColumn, columns_LB: dict[str, Floats], first_row: int) -> None:
    assert label.implies in columns_LB, f"{label.name} implies {label.implies}, which is not among the labels"
    is_wrong_B = (columns_LB[label.name] > 0) & (columns_LB[label.implies] == 0)
    count = int(is_wrong_B.sum())
    if count:
        raise DataError(
            f"conversion without its click: {count} row{'s' if count > 1 else ''} with {label.name} > 0 where "
            f"{label.implies} = 0, first in row {first_row + int(is_wrong_B.argmax())}; "
            f"mend the log, or do not make {label.implies} the space of a task on {label.column}"
        )

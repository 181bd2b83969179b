"""Tests of label columns."""

from typing import Any

import pyarrow as pa
import pytest

from recmoe.errors import DataError, SchemaError
from recmoe.features.label_values import encode_labels
from recmoe.features.labels import LabelColumn, Levels, Positive

CLICK = LabelColumn(column="click", is_binary=True)
SALE = LabelColumn(column="sale", is_binary=True, implies="click")
SPEND = LabelColumn(column="spend", is_binary=False, implies="click")


def _nan_as_none(values: list[list[float]]) -> list[list[float | None]]:
    return [[None if x != x else x for x in row] for row in values]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, 0, None], pa.int8()),
        pa.array([1.0, 0.0, float("nan")]),
        pa.array([True, False, None]),
        pa.array(["1", "0", None]),
        pa.array(["True", " false", None]),
        pa.array(["true", "false", None]).dictionary_encode(),
    ],
    ids=lambda values: str(values.type),
)
def test_binary_label_of_any_type_is_zero_one_or_missing(values: pa.Array) -> None:
    labels_BL = encode_labels(pa.table({"click": values}), [CLICK])

    assert _nan_as_none(labels_BL.tolist()) == [[1.0], [0.0], [None]]


@pytest.mark.parametrize(
    ("values", "wrong"), [([0, 2], "2"), ([0.0, 0.5], "0.5"), (["0", "yes"], "'yes'"), ([0, float("inf")], "inf")]
)
def test_binary_label_that_is_neither_zero_nor_one_is_named_with_its_row(values: list[Any], wrong: str) -> None:
    table = pa.table({"click": values})

    with pytest.raises(DataError, match=rf"label column 'click' holds {wrong} in row 11; a binary label is 0, 1, true"):
        encode_labels(table, [CLICK], first_row=10)


def test_real_label_may_be_any_finite_number() -> None:
    table = pa.table({"click": [1, 1, 1], "spend": [2.5, -1.0, None]})

    labels_BL = encode_labels(table, [SPEND, CLICK])

    assert _nan_as_none(labels_BL.tolist()) == [[2.5, 1.0], [-1.0, 1.0], [None, 1.0]]


@pytest.mark.parametrize("value", [float("inf"), -1e300])
def test_real_label_beyond_a_float_is_named_with_its_row(value: float) -> None:
    table = pa.table({"click": [1, 1], "spend": [1.0, value]})

    with pytest.raises(DataError, match=r"label column 'spend' holds .* in row 1; a label must be a finite number"):
        encode_labels(table, [CLICK, SPEND])


def test_conversion_without_its_click_is_counted_and_named() -> None:
    table = pa.table({"click": [1, 0, None, 0, 0], "sale": [1, 0, 1, 1, 1]})

    with pytest.raises(
        DataError, match=r"conversion without its click: 2 rows with sale > 0 where click = 0, first in row 3; mend"
    ):
        encode_labels(table, [CLICK, SALE])


def test_spend_without_a_click_is_an_error_and_zero_is_not() -> None:
    fine = pa.table({"click": [0, 1], "spend": [0.0, 3.0]})
    wrong = pa.table({"click": [0, 1], "spend": [0.5, 3.0]})

    assert encode_labels(fine, [CLICK, SPEND]).tolist() == [[0.0, 0.0], [1.0, 3.0]]
    with pytest.raises(DataError, match="1 row with spend > 0 where click = 0, first in row 0"):
        encode_labels(wrong, [CLICK, SPEND])


@pytest.mark.parametrize(
    ("label", "values", "expected"),
    [(SPEND, ["2.5"], "a number, found string"), (CLICK, [[1]], "0, 1, true or false, found list")],
)
def test_label_of_a_wrong_type_is_named(label: LabelColumn, values: list[Any], expected: str) -> None:
    table = pa.table({label.column: values})

    with pytest.raises(SchemaError, match=rf"label column '{label.column}': expected {expected}"):
        encode_labels(table, [label])


def test_missing_label_column_is_named_with_a_suggestion() -> None:
    with pytest.raises(
        SchemaError, match="column 'click' is missing, needed by a task, as its label; did you mean 'clicks'"
    ):
        encode_labels(pa.table({"clicks": [1]}), [CLICK])


def test_no_labels_have_no_columns() -> None:
    assert encode_labels(pa.table({"click": [1, 0]}), []).shape == (2, 0)


@pytest.mark.parametrize("is_binary", [True, False])
def test_text_of_nothing_but_marks_for_null_is_a_missing_label(is_binary: bool) -> None:
    labels = [LabelColumn(column="x", is_binary=is_binary)]

    assert encode_labels(pa.table({"x": ["NA", None]}), labels).isnan().all()


@pytest.mark.parametrize(
    ("values", "positive"),
    [
        (["Y", "N", None, " Y"], "Y"),
        (["Y", "N", "", "Y"], ["Y", "y"]),
        (["1", "-1", None, "1"], 1),
        (["buy", "pv", None, "cart"], ["cart", "buy"]),
        (["true", "f", None, "true"], True),
        ([1, -1, None, 1], "1"),
        ([2, 1, None, 2], 2),
        ([True, False, None, True], True),
        ([4.0, 3.5, float("nan"), 5.0], {"at_least": 4}),
        ([3, 0, None, 1], {"above": 0}),
        (pa.array([7, 0, None, 2**63], pa.uint64()), {"above": 0}),
        (pa.array([7, 0, None, 1], pa.decimal128(5, 2)), {"above": 0}),
        (pa.array(["Y", "N", None, "Y"]).dictionary_encode(), "Y"),
    ],
    ids=str,
)
def test_values_that_count_as_one_are_named_by_the_task(values: Any, positive: Any) -> None:
    label = LabelColumn("outcome", is_binary=True, positive=Positive.model_validate(positive))

    labels_BL = encode_labels(pa.table({"outcome": values}), [label])

    assert _nan_as_none(labels_BL.tolist()) == [[1.0], [0.0], [None], [1.0]]


def test_two_thresholds_of_one_column_are_two_labels_beside_the_column_itself() -> None:
    like = LabelColumn("rating", is_binary=True, positive=Positive(at_least=4))
    love = LabelColumn("rating", is_binary=True, positive=Positive(at_least=5), implies="rating >= 4")

    labels_BL = encode_labels(pa.table({"rating": [3, 4, 5]}), [like, love, LabelColumn("rating", is_binary=False)])

    assert labels_BL.tolist() == [[0, 0, 3], [1, 0, 4], [1, 1, 5]]


@pytest.mark.parametrize(
    ("values", "positive", "message"),
    [
        (["4"], {"at_least": 4}, "label column 'y': >= 4 needs numbers, found string; convert the column"),
        ([1], "Y", "label column 'y' holds int64, in which 'Y' does not occur; give a number as positive"),
        ([[1]], 1, "label column 'y': expected numbers or text, found list"),
    ],
)
def test_column_that_cannot_hold_the_positive_values_is_named(values: list[Any], positive: Any, message: str) -> None:
    label = LabelColumn("y", is_binary=True, positive=Positive.model_validate(positive))

    with pytest.raises(SchemaError, match=message):
        encode_labels(pa.table({"y": values}), [label])


@pytest.mark.parametrize(
    ("values", "levels", "expected"),
    [
        ([1, 5, None, 3], [1, 3, 5], [1, 5, None, 3]),
        ([1.0, 0.5, float("nan"), 1.0], {0.5: 0, 1: 7}, [7, 0, None, 7]),
        (["pv", " buy", "", None], {"pv": 0, "buy": 2.5}, [0, 2.5, None, None]),
        (["1", "2", None, "1"], [1, 2], [1, 2, None, 1]),
        ([True, False, None, True], {True: 3, False: -1}, [3, -1, None, 3]),
        (pa.array(["a", "b", None, "a"]).dictionary_encode(), {"a": 1, "b": 2}, [1, 2, None, 1]),
    ],
    ids=str,
)
def test_levels_become_what_they_stand_for(values: Any, levels: Any, expected: list[float | None]) -> None:
    label = LabelColumn("y", is_binary=False, levels=Levels.model_validate(levels))

    labels_BL = encode_labels(pa.table({"y": values}), [label])

    assert _nan_as_none(labels_BL.tolist()) == [[value] for value in expected]


@pytest.mark.parametrize(
    ("values", "levels", "message"),
    [
        ([1, 7], [1, 2], "label column 'y' holds 7 in row 11, which is none of the levels 1, 2: name it in levels"),
        (["a", "c"], {"a": 0, "b": 1}, "holds 'c' in row 11, which is none of the levels a: 0, b: 1"),
    ],
)
def test_value_that_is_no_level_is_named_with_its_row(values: list[Any], levels: Any, message: str) -> None:
    label = LabelColumn("y", is_binary=False, levels=Levels.model_validate(levels))

    with pytest.raises(DataError, match=message):
        encode_labels(pa.table({"y": values}), [label], first_row=10)


@pytest.mark.parametrize(
    ("values", "levels", "message"),
    [
        ([1], {"Y": 0, "N": 1}, "label column 'y' holds int64, in which 'Y' does not occur; give a number as level"),
        ([[1]], [0, 1], "label column 'y': expected numbers or text, found list"),
    ],
)
def test_column_that_cannot_hold_the_levels_is_named(values: list[Any], levels: Any, message: str) -> None:
    label = LabelColumn("y", is_binary=False, levels=Levels.model_validate(levels))

    with pytest.raises(SchemaError, match=message):
        encode_labels(pa.table({"y": values}), [label])


def test_negative_amount_is_named_with_its_row() -> None:
    label = LabelColumn("y", is_binary=False, is_amount=True)

    with pytest.raises(
        DataError, match=r"'y' holds -0\.5 in row 1; an amount is 0 or more: mend it, or declare a regr"
    ):
        encode_labels(pa.table({"y": [0.0, -0.5]}), [label])

"""Tests of raw columns by name and type."""

from typing import Any

import pyarrow as pa
import pytest

from recmoe.errors import SchemaError
from recmoe.features.columns import find_column, id_column_of, plain_type
from recmoe.features.kinds import FeatureConfig, IdFeature, IdListFeature, NumericFeature


def test_missing_column_is_named_with_what_needs_it_and_what_is_there() -> None:
    table = pa.table({"prize": [1.0], "shop": [1]})

    with pytest.raises(
        SchemaError,
        match=r"column 'price' is missing, needed by feature 'cost'; did you mean 'prize'\? found: prize, shop",
    ):
        NumericFeature(column="price").raw_columns("cost")[0].read(table, feature="cost")


def test_missing_column_of_an_empty_table_is_named() -> None:
    with pytest.raises(SchemaError, match="column 'price' is missing, needed by me; found: no columns"):
        find_column(pa.table({}), "price", needed_by="me")


def test_column_that_is_there_twice_is_an_error() -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])

    with pytest.raises(SchemaError, match="column 'a', needed by me, is there 2 times; rename the others"):
        find_column(table, "a", needed_by="me")


@pytest.mark.parametrize(
    ("feature", "values", "problem"),
    [
        (IdFeature(), [[1]], r"expected one id per row, found list<.*int64>; declare it as kind: id_list"),
        (IdFeature(), [{"a": 1}], r"expected one id per row, found struct.*; make a column of strings or integers"),
        (IdListFeature(), ["a b"], r"expected a list of ids, found string; give the separator"),
        (IdListFeature(separator="|"), [3], r"expected a list of ids, found int64; declare it as kind: numeric, or as"),
        (IdListFeature(separator=","), [7.87], r"expected a list of ids, found double; declare it as kind: numeric"),
        (IdListFeature(), [[[1]]], r"expected a list of ids, found list<.*list<.*; declare it as kind: id$"),
        (NumericFeature(), ["3"], r"expected a number, found string; convert the column, or declare it as kind: id"),
    ],
)
def test_wrong_type_is_named_with_what_was_expected(feature: FeatureConfig, values: list[Any], problem: str) -> None:
    table = pa.table({"x": values})

    with pytest.raises(SchemaError, match=rf"column 'x' of feature 'x': {problem}"):
        feature.raw_columns("x")[0].read(table, feature="x")


def test_group_must_be_an_id() -> None:
    with pytest.raises(SchemaError, match=r"column 'x', needed by me: expected one id per row, found list"):
        id_column_of(pa.table({"x": [[1]]}), "x", needed_by="me")


@pytest.mark.parametrize("feature", [IdFeature(), IdListFeature(), NumericFeature()])
def test_column_of_nulls_fits_every_feature(feature: FeatureConfig) -> None:
    assert feature.raw_columns("x")[0].read(pa.table({"x": pa.nulls(2)}), feature="x").null_count == 2


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        (pa.dictionary(pa.int8(), pa.large_string()), pa.string()),
        (pa.large_list(pa.dictionary(pa.int8(), pa.string_view())), pa.list_(pa.string())),
        (pa.list_(pa.int32(), 3), pa.list_(pa.int32())),
        (pa.float32(), pa.float32()),
    ],
    ids=str,
)
def test_plain_type_forgets_how_values_are_stored(kind: pa.DataType, plain: pa.DataType) -> None:
    assert plain_type(kind) == plain


@pytest.mark.parametrize("name", ["价格", "🙂 price", "a\nb", "'", "a.b"])
def test_name_in_any_script_is_found(name: str) -> None:
    assert find_column(pa.table({name: [1]}), name, needed_by="me").to_pylist() == [1]


def test_name_that_is_no_text_is_missing() -> None:
    with pytest.raises(SchemaError, match=r"column '\\ud83d' is missing, needed by me; found: 'a\\nb', c"):
        find_column(pa.table({"a\nb": [1], "c": [2]}), "\ud83d", needed_by="me")


def test_text_of_nothing_but_marks_for_null_is_a_column_without_numbers() -> None:
    table = pa.table({"x": ["NA", None, "?"], "y": ["NA", None, "7 CHF"]})

    assert NumericFeature().raw_columns("x")[0].read(table, feature="x").null_count == 3
    assert IdFeature().raw_columns("x")[0].read(table, feature="x").to_pylist() == ["NA", None, "?"]
    with pytest.raises(SchemaError, match="column 'y' of feature 'y': expected a number, found string"):
        NumericFeature().raw_columns("y")[0].read(table, feature="y")

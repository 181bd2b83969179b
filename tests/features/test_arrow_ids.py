"""Tests of Arrow columns of ids."""

import numpy as np
import pyarrow as pa
import pytest

from recmoe.features.arrow_ids import IdValues, id_column, id_list_column, id_values

LISTS = [["a", "b"], None, [], ["c", None, "d"]]


def _texts(ids: IdValues) -> list[str | None]:
    texts = [*ids.distinct.cast(pa.string()).to_pylist(), None]
    return texts[:-1] if ids.places is None else [texts[place] for place in ids.places]


def _lists(column: pa.ChunkedArray, **options: object) -> list[list[str | None]]:
    settings: dict[str, object] = {"separator": None, "max_length": None, **options}
    rows = []
    for ids, lengths in id_list_column(column, **settings):  # type: ignore[arg-type]
        texts = _texts(ids)
        assert len(texts) == lengths.sum()
        for length in lengths:
            rows.append(texts[:length])
            texts = texts[length:]
    return rows


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_strings_of_any_form_are_stored_once_per_value(kind: pa.DataType) -> None:
    values = pa.array(["b", "a", None, "b"], pa.string()).cast(kind)

    ids = id_values(values)

    assert ids.distinct.to_pylist() == ["b", "a"]
    assert _texts(ids) == ["b", "a", None, "b"]
    assert ids.is_missing.tolist() == [False, False, True, False]


def test_chunks_may_have_dictionaries_of_their_own() -> None:
    column = pa.chunked_array(
        [pa.array(["a", "b"]).dictionary_encode(), pa.array(["b", None, "c"]).dictionary_encode()]
    )

    assert [text for ids in id_column(column) for text in _texts(ids)] == ["a", "b", "b", None, "c"]


def test_slice_with_a_large_dictionary_is_read_by_its_values() -> None:
    dictionary = pa.DictionaryArray.from_arrays(pa.array([90, 5, None]), pa.array([f"i{i}" for i in range(100)]))

    ids = id_values(dictionary.slice(1, 2))

    assert _texts(ids) == ["i5", None]
    assert len(ids.distinct) == 1


def test_null_inside_a_dictionary_is_missing() -> None:
    ids = id_values(pa.DictionaryArray.from_arrays(pa.array([0, 1, 1, 0]), pa.array(["a", None])))

    assert ids.is_missing.tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.string()),
        pa.large_list(pa.string()),
        pa.large_list(pa.large_string()),
        pa.list_(pa.dictionary(pa.int32(), pa.string())),
        pa.list_view(pa.string()),
        pa.large_list_view(pa.string()),
    ],
    ids=str,
)
def test_lists_of_any_form_lose_their_nulls(kind: pa.DataType) -> None:
    column = pa.chunked_array([pa.array(LISTS, kind)])

    assert _lists(column) == [["a", "b"], [], [], ["c", "d"]]
    assert _lists(column.slice(1, 3)) == [[], [], ["c", "d"]]
    assert _lists(column.slice(3)) == [["c", "d"]]
    assert _lists(column.slice(4)) == []


def test_lists_of_fixed_size_may_be_null() -> None:
    column = pa.chunked_array([pa.array([[1, 2], None, [3, None]], pa.list_(pa.int64(), 2))])

    assert _lists(column) == [["1", "2"], [], ["3"]]
    assert _lists(column.slice(1)) == [[], ["3"]]


def test_values_hidden_by_a_null_list_are_not_read() -> None:
    hidden = pa.ListArray.from_arrays(
        pa.array([0, 1, 3, 4]), pa.array([1, 2, 3, 4]), mask=pa.array([False, True, False])
    )

    assert _lists(pa.chunked_array([hidden])) == [["1"], [], ["4"]]


def test_nan_in_a_list_is_dropped() -> None:
    assert _lists(pa.chunked_array([pa.array([[1.0, float("nan")], [2.0]])])) == [["1"], ["2"]]


def test_last_ids_of_a_long_list_stay() -> None:
    column = pa.chunked_array([pa.array([["a", "b", "c", None], ["d"], None, ["e", "f"]])])

    assert _lists(column, max_length=2) == [["b", "c"], ["d"], [], ["e", "f"]]
    assert _lists(column, max_length=1) == [["c"], ["d"], [], ["f"]]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_separated_string_is_a_list_without_empty_parts(kind: pa.DataType) -> None:
    column = pa.chunked_array([pa.array(["a|b", "", None, " c || 7"], pa.string()).cast(kind)])

    assert _lists(column, separator="|") == [["a", "b"], [], [], ["c", "7"]]
    assert _lists(column.slice(3), separator="|") == [["c", "7"]]


def test_column_of_nulls_is_a_column_of_empty_lists() -> None:
    assert _lists(pa.chunked_array([pa.nulls(2)])) == [[], []]
    assert _lists(pa.chunked_array([pa.array([[None], []])])) == [[], []]


def test_short_floats_are_ids() -> None:
    values = pa.array(np.array([2.0, 0.5, 2.0], np.float16))

    assert _texts(id_values(values)) == ["2", "0.5", "2"]
    assert _lists(pa.chunked_array([pa.ListArray.from_arrays([0, 2, 3], values)])) == [["2", "0.5"], ["2"]]

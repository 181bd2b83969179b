import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from recmoe.features.kinds import IdFeature, IdListFeature, NumericFeature, SequenceColumn, SequenceFeature
from recmoe.onboarding.alone import TaskRows, alone, auc, auc_error
from recmoe.onboarding.column_values import column_values


def binary(label_N: list[int]) -> TaskRows:
    return TaskRows("click", "click", "binary", np.array(label_N, np.float64), np.ones(len(label_N), np.bool_))


def halves(num_rows: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.arange(num_rows) % 2 == 1


def test_auc_of_counts_equals_that_of_rows() -> None:
    random = np.random.default_rng(0)
    score_K = np.array([0.2, 0.5, 0.5, -1.0])
    positive_K, negative_K = random.integers(1, 9, 4).astype(float), random.integers(1, 9, 4).astype(float)
    labels = np.concatenate([np.ones(int(positive_K.sum())), np.zeros(int(negative_K.sum()))])
    scores = np.concatenate([np.repeat(score_K, positive_K.astype(int)), np.repeat(score_K, negative_K.astype(int))])

    assert auc(score_K, positive_K, negative_K) == pytest.approx(roc_auc_score(labels, scores))


def test_auc_without_positives_is_not_defined() -> None:
    assert np.isnan(auc(np.zeros(2), np.zeros(2), np.ones(2)))


def test_error_of_an_auc_shrinks_with_the_positives() -> None:
    assert auc_error(0.8, 400, 4000) < auc_error(0.8, 100, 4000) < auc_error(0.8, 10, 4000)
    assert auc_error(1.0, 10, 10) == 0.0


def test_id_that_occurs_once_tells_nothing() -> None:
    values = column_values(pa.table({"id": [f"row{row}" for row in range(400)]}), "id", IdFeature())

    assert alone(values, binary([0, 0, 1, 1] * 100), halves(400)).value == 0.5


def test_value_that_decides_the_label_reaches_one() -> None:
    values = column_values(pa.table({"id": ["no", "no", "yes", "yes"] * 100}), "id", IdFeature())

    assert alone(values, binary([0, 0, 1, 1] * 100), halves(400)).value == 1.0


def test_number_may_rise_and_fall_with_the_label() -> None:
    x_N = np.arange(4000) % 1000
    values = column_values(pa.table({"x": x_N}), "x", NumericFeature())

    told = alone(values, binary(((x_N > 300) & (x_N < 700)).astype(int).tolist()), x_N % 2 == 1)

    assert told.value > 0.99


def test_list_tells_by_its_elements_and_by_being_empty() -> None:
    lists = [["a", "b"], [], ["b"], ["c", "b"]] * 100
    values = column_values(pa.table({"tags": lists}), "tags", IdListFeature())

    told = alone(values, binary([1, 1, 0, 0] * 100), np.arange(400) // 4 % 2 == 1)

    assert told.value == 1.0


def test_history_tells_by_its_first_column_as_a_list_does() -> None:
    rows = pa.table({"seen": [["a", "b"], [], ["b"], ["c", "b"]] * 100, "shops": [[1, 1], [], [1], [1, 1]] * 100})
    columns = {"item": SequenceColumn(column="seen"), "shop": SequenceColumn(column="shops")}
    values = column_values(rows, "history", SequenceFeature(columns=columns))

    told = alone(values, binary([1, 1, 0, 0] * 100), np.arange(400) // 4 % 2 == 1)

    assert told.value == 1.0


def test_only_rows_of_the_space_count() -> None:
    label_N = np.array([0.0, 0, 1, 1] * 100)
    inside_N = np.arange(400) % 4 < 3
    values = column_values(pa.table({"x": [5.0, 5, 7, 5] * 100}), "x", NumericFeature())

    told = alone(values, TaskRows("cvr", "cvr", "binary", label_N, inside_N), np.arange(400) // 4 % 2 == 1)

    assert told.value == 1.0


@pytest.mark.parametrize(
    ("values", "is_filled"),
    [
        (pa.array(["Y", "N", None, ""]), [True, False, False, False]),
        (pa.array(["a", "No", "\\N", "b"]), [True, False, False, True]),
        (pa.array([1, 0, None, 3]), [True, False, False, True]),
        (pa.array([True, False, None, True]), [True, False, False, True]),
        (pa.array(["m", "f2", "m", "m"]), [False, True, False, False]),
    ],
)
def test_words_for_nothing_are_not_filled(values: pa.Array, is_filled: list[bool]) -> None:
    found = column_values(pa.table({"id": values}), "id", IdFeature())

    assert found.is_filled_N.tolist() == is_filled


@pytest.mark.parametrize(
    ("numbers", "is_filled"),
    [
        ([1.0, 2.0, 1.0], [False, True, False]),
        ([-1.0, 5.0, -1.0, 7.0], [False, True, False, True]),
        ([-1.0, 5.0, None, 0.0], [True, True, False, False]),
        ([3.0, 5.0, 6.0, 7.0, 8.0, 9.0], [True] * 6),
    ],
)
def test_lowest_number_may_stand_for_nothing(numbers: list[float | None], is_filled: list[bool]) -> None:
    found = column_values(pa.table({"x": numbers}), "x", NumericFeature())

    assert found.is_filled_N.tolist() == is_filled


def test_column_without_a_value_tells_nothing() -> None:
    for feature in (IdFeature(), NumericFeature(), IdListFeature()):
        values = column_values(pa.table({"x": pa.nulls(400)}), "x", feature)

        assert alone(values, binary([0, 0, 1, 1] * 100), halves(400)).value == 0.5
        assert not values.is_filled_N.any()


def test_value_of_many_rows_has_a_bin_of_its_own() -> None:
    x_N = np.concatenate([np.zeros(500), np.random.default_rng(0).gamma(2.0, 1.0, 500)])

    found = column_values(pa.table({"x": x_N}), "x", NumericFeature())

    assert len(set(found.code_n[:500])) == 1
    assert found.code_n[0] not in found.code_n[500:]
    assert found.num_codes < 140

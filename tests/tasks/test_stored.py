"""Configs that earlier versions have stored mean what they meant."""

from recmoe.tasks.stored import with_stored_tasks


def test_log1p_regression_of_an_earlier_version_predicts_the_median() -> None:
    stored = {"name": "x", "tasks": {"watch": {"kind": "regression", "label": "s", "transform": "log1p"}}}

    read = with_stored_tasks(stored)

    assert read["tasks"]["watch"] == {"kind": "regression", "label": "s", "transform": "log1p", "predicts": "median"}
    assert "predicts" not in stored["tasks"]["watch"]  # type: ignore[index]


def test_what_was_stored_with_a_word_on_it_and_other_kinds_stay() -> None:
    stored = {
        "tasks": {
            "watch": {"kind": "regression", "label": "s", "transform": "log1p", "predicts": None},
            "rating": {"kind": "regression", "label": "r", "transform": "none"},
            "ctr": {"kind": "binary", "label": "c"},
        }
    }

    assert with_stored_tasks(stored) == stored


def test_document_without_tasks_is_left_to_the_check_of_configs() -> None:
    assert with_stored_tasks({"name": "x"}) == {"name": "x"}
    assert with_stored_tasks({"tasks": {"ctr": 3}}) == {"tasks": {"ctr": 3}}

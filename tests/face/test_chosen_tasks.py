"""A starter config keeps the tasks that were chosen, and what they need."""

from typing import Any

import pytest

from recmoe.errors import ConfigError
from recmoe.face.chosen_tasks import TaskChoice, choose_tasks, outcome_columns


def starter() -> dict[str, Any]:
    return {
        "tasks": {
            "click": {"kind": "binary", "label": "click"},
            "buy": {"kind": "binary", "label": "buy", "space": "click"},
            "click_and_buy": {"kind": "product", "of": ["click", "buy"]},
            "rating": {"kind": "regression", "label": "rating"},
            "like": {"kind": "binary", "label": "rating", "positive": {"at_least": 4}},
        },
        "training": {"early_stopping": {"metric": "click.auc[all]", "patience": 3}},
        "ranking": {"default": "click_and_buy"},
    }


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        (["click"], ["click"]),
        (["buy"], ["click", "buy", "click_and_buy"]),
        (["click_and_buy"], ["click", "buy", "click_and_buy"]),
        (["rating"], ["rating", "like"]),
        (["rating>=4"], ["like"]),
        (["like", "click"], ["click", "like"]),
    ],
)
def test_list_keeps_outcomes_and_what_they_depend_on(asked: list[str], kept: list[str]) -> None:
    document = starter()

    choose_tasks(document, asked)

    assert list(document["tasks"]) == kept


def test_score_and_stopping_metric_name_a_task_that_is_left() -> None:
    document, kept = starter(), starter()

    choose_tasks(document, {"stars": {"kind": "regression", "label": "rating"}})
    choose_tasks(kept, ["buy"])

    assert document["tasks"] == {"stars": {"kind": "regression", "label": "rating"}}
    assert document["ranking"] == {"default": "stars"}
    assert document["training"]["early_stopping"] == {"metric": "stars.rmse[all]", "patience": 3}
    assert (kept["ranking"], kept["training"]) == (starter()["ranking"], starter()["training"])


@pytest.mark.parametrize(
    ("task", "metric"),
    [
        ({"kind": "ordinal", "label": "rating"}, "x.rmse[all]"),
        ({"kind": "ranking", "label": "buy", "space": "click"}, "x.auc[click]"),
        ({"kind": "quantile", "label": "rating"}, "score"),
        ({"kind": "binary", "label": "buy", "available": "reports"}, "score"),
        ({"kind": "product", "of": ["x", "y"]}, "x.auc[all]"),
    ],
)
def test_stopping_metric_is_one_that_the_task_has(task: dict[str, Any], metric: str) -> None:
    document = starter()

    choose_tasks(document, {"x": task})

    assert document["training"]["early_stopping"]["metric"] == metric


@pytest.mark.parametrize(
    ("tasks", "columns"),
    [
        (["click", "rating>=4"], ["click", "rating>=4"]),
        ({"ctr": {"kind": "binary", "label": "click"}, "both": {"kind": "product", "of": ["ctr"]}}, ["click"]),
        ({"like": {"kind": "binary", "label": "rating", "positive": {"at_least": 4}}}, ["rating>=4"]),
        ({"any": {"kind": "binary", "label": "visits", "positive": {"above": 0}}}, ["visits>0"]),
        ({"rich": {"kind": "binary", "label": "income", "positive": "high"}}, ["income=high"]),
        ({"act": {"kind": "binary", "label": "event", "positive": ["cart", "buy"]}}, ["event=cart"]),
    ],
)
def test_outcomes_are_named_as_init_takes_them(tasks: TaskChoice, columns: list[str]) -> None:
    assert outcome_columns(tasks) == columns


@pytest.mark.parametrize("tasks", ["click", [], {}])
def test_no_tasks_are_an_error(tasks: TaskChoice) -> None:
    with pytest.raises(ConfigError, match="tasks: expected a list of columns or a mapping of tasks, got"):
        outcome_columns(tasks)

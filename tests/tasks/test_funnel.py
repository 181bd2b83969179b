import math
import re

import pytest
import torch

from recmoe.features.labels import LabelColumn, Levels, Positive
from recmoe.tasks import TaskConfig
from recmoe.tasks.binary import BinaryTaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.ordinal import OrdinalTaskConfig
from recmoe.tasks.problems import task_problems
from recmoe.tasks.product import ProductTaskConfig
from recmoe.tasks.quantile import QuantileTaskConfig
from recmoe.tasks.regression import RegressionTaskConfig
from recmoe.tasks.spaces import label_columns, outcome_columns
from recmoe.tasks.zero_inflated_lognormal import ZeroInflatedLognormalTaskConfig

NAN = math.nan

ESMM: dict[str, TaskConfig] = {
    "ctr": BinaryTaskConfig(label="click"),
    "cvr": BinaryTaskConfig(label="buy", space="click"),
    "ctcvr": ProductTaskConfig(of=("ctr", "cvr")),
}


def test_task_set_knows_names_towers_spaces_and_kinds() -> None:
    tasks = TaskSet({**ESMM, "spend": RegressionTaskConfig(label="spend", space="buy", weight=0.2)})

    assert tasks.names == ("ctr", "cvr", "ctcvr", "spend")
    assert tasks.tower_names == ("ctr", "cvr", "spend")
    assert tasks.spaces == {"ctr": "all", "cvr": "click", "ctcvr": "all", "spend": "buy"}
    assert tasks.kinds == {"ctr": "binary", "cvr": "binary", "ctcvr": "binary", "spend": "regression"}
    assert tasks.weights == {"ctr": 1.0, "cvr": 1.0, "ctcvr": 1.0, "spend": 0.2}


def test_label_column_implies_the_column_of_its_space() -> None:
    assert label_columns({**ESMM, "spend": RegressionTaskConfig(label="spend", space="buy")}) == (
        LabelColumn("click", is_binary=True),
        LabelColumn("buy", is_binary=True, implies="click"),
        LabelColumn("spend", is_binary=False, implies="buy"),
    )


def test_label_implies_nothing_where_its_task_ignores_what_lies_outside() -> None:
    tasks: dict[str, TaskConfig] = {
        "ctr": BinaryTaskConfig(label="click"),
        "cvr": BinaryTaskConfig(label="buy", space="click", outside_space="ignore"),
    }

    assert label_columns(tasks)[1] == LabelColumn("buy", is_binary=True, implies=None)


def test_label_in_nested_spaces_implies_the_innermost() -> None:
    tasks: dict[str, TaskConfig] = {
        "ctr": BinaryTaskConfig(label="click"),
        "click_to_buy": BinaryTaskConfig(label="buy", space="click"),
        "cart": BinaryTaskConfig(label="cart", space="click"),
        "cart_to_buy": BinaryTaskConfig(label="buy", space="cart"),
    }

    assert LabelColumn("buy", is_binary=True, implies="cart") in label_columns(tasks)
    assert list(task_problems(tasks)) == []


def test_space_all_is_no_space() -> None:
    assert BinaryTaskConfig(label="click", space="all").space is None


RATINGS: dict[str, TaskConfig] = {
    "rating": RegressionTaskConfig(label="rating"),
    "like": BinaryTaskConfig(label="rating", positive=Positive(at_least=4)),
    "love": BinaryTaskConfig(label="rating", positive=Positive(at_least=5), space="like"),
    "like_and_love": ProductTaskConfig(of=("like", "love")),
}


def test_space_may_name_a_task_whose_label_is_some_values_of_a_column() -> None:
    tasks = TaskSet(RATINGS)

    labels_BT, weights_BT = tasks.targets(torch.tensor([[3.0, 0, 0], [4.0, 1, 0], [5.0, 1, 1]]))

    assert list(task_problems(RATINGS)) == []
    assert [label.name for label in tasks.label_columns] == ["rating", "rating >= 4", "rating >= 5"]
    assert tasks.label_columns[2].implies == "rating >= 4"
    assert tasks.spaces == {"rating": "all", "like": "all", "love": "like", "like_and_love": "all"}
    assert labels_BT.tolist() == [[3, 0, 0, 0], [4, 1, 0, 0], [5, 1, 1, 1]]
    assert weights_BT[:, 2].tolist() == [0, 1, 1]


def test_space_may_name_a_task_or_its_label_column() -> None:
    by_column, by_task = (
        label_columns({"ctr": BinaryTaskConfig(label="click"), "cvr": BinaryTaskConfig(label="buy", space=space)})
        for space in ("click", "ctr")
    )

    assert by_column == by_task


def test_label_column_called_all_is_not_the_space_of_all_rows() -> None:
    tasks = TaskSet({"every": BinaryTaskConfig(label="all"), "other": BinaryTaskConfig(label="other")})

    _, weights_BT = tasks.targets(torch.tensor([[0.0, 1.0]]))

    assert weights_BT.tolist() == [[1, 1]]


def test_targets_leave_out_missing_labels_and_rows_outside_the_space() -> None:
    tasks = TaskSet({"ctr": ESMM["ctr"], "cvr": ESMM["cvr"]})
    labels_BL = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [1.0, NAN], [NAN, 0.0]])

    labels_BT, weights_BT = tasks.targets(labels_BL)

    assert labels_BT.tolist() == [[0, 0], [1, 0], [1, 1], [1, 0], [0, 0]]
    assert weights_BT.tolist() == [[1, 0], [1, 1], [1, 1], [1, 0], [0, 0]]


def test_product_counts_a_row_without_its_first_step_as_failed() -> None:
    tasks = TaskSet(ESMM)
    labels_BL = torch.tensor([[0.0, NAN], [1.0, NAN], [1.0, 1.0], [NAN, 0.0], [NAN, 1.0]])

    labels_BT, weights_BT = tasks.targets(labels_BL)

    assert labels_BT[:, 2].tolist() == [0, 0, 1, 0, 0]
    assert weights_BT[:, 2].tolist() == [1, 0, 1, 1, 0]


def test_product_may_name_its_own_label() -> None:
    tasks = TaskSet({**ESMM, "ctcvr": ProductTaskConfig(of=("ctr", "cvr"), label="bought_in_a_week")})

    assert [label.column for label in tasks.label_columns] == ["click", "buy", "bought_in_a_week"]
    labels_BT, _ = tasks.targets(torch.tensor([[1.0, 0.0, 1.0]]))
    assert labels_BT.tolist() == [[1, 0, 1]]


def test_products_of_products_multiply_all_steps() -> None:
    tasks = TaskSet(
        {
            "ctr": BinaryTaskConfig(label="click"),
            "cart": BinaryTaskConfig(label="cart", space="click"),
            "buy": BinaryTaskConfig(label="buy", space="cart"),
            "ctcart": ProductTaskConfig(of=("ctr", "cart")),
            "all_the_way": ProductTaskConfig(of=("ctcart", "buy")),
        }
    )

    predictions_BT = tasks.predict(torch.zeros(1, 3))

    torch.testing.assert_close(predictions_BT, torch.tensor([[0.5, 0.5, 0.5, 0.25, 0.125]]))


def test_losses_are_divided_by_the_batch_size() -> None:
    tasks = TaskSet(ESMM)
    labels_BT, weights_BT = tasks.targets(torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]))

    losses_T = tasks.losses(tasks.row_losses(torch.zeros(4, 2), labels_BT, weights_BT))

    product = (3 * -math.log(0.75) - math.log(0.25)) / 4
    torch.testing.assert_close(losses_T, torch.tensor([math.log(2), math.log(2) / 4, product]))


def test_loss_of_a_row_does_not_depend_on_its_neighbours() -> None:
    tasks = TaskSet(ESMM)
    logits_BZ = torch.tensor([[0.3, -0.2], [1.0, 2.0]], requires_grad=True)

    gradients = []
    for neighbour in ([0.0, 0.0], [1.0, 1.0]):
        losses_T = tasks.losses(tasks.row_losses(logits_BZ, *tasks.targets(torch.tensor([[1.0, 0.0], neighbour]))))
        gradients.append(torch.autograd.grad(losses_T.sum(), logits_BZ)[0][0])

    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


def test_row_without_labels_has_no_gradient() -> None:
    tasks = TaskSet(ESMM)
    logits_BZ = torch.zeros(2, 2, requires_grad=True)

    losses_T = tasks.losses(tasks.row_losses(logits_BZ, *tasks.targets(torch.tensor([[NAN, NAN], [0.0, NAN]]))))
    losses_T.sum().backward()

    assert logits_BZ.grad is not None
    assert logits_BZ.grad[0].tolist() == [0, 0]
    assert logits_BZ.grad[1, 0] > 0


REPORTED: dict[str, TaskConfig] = {
    "ctr": BinaryTaskConfig(label="click"),
    "cvr": BinaryTaskConfig(label="buy", space="click", available="reports"),
    "ctcvr": ProductTaskConfig(of=("ctr", "cvr")),
    "spend": RegressionTaskConfig(label="spend", available="reports"),
}


def test_rows_that_are_not_available_do_not_count_whatever_their_label_is() -> None:
    tasks = TaskSet(REPORTED)
    # click, buy, spend, reports
    labels_BL = torch.tensor(
        [[1.0, 1.0, 5.0, 1.0], [1.0, 0.0, 5.0, 0.0], [0.0, 0.0, 5.0, 0.0], [0.0, 0.0, NAN, 1.0], [1.0, 1.0, 5.0, NAN]]
    )

    labels_BT, weights_BT = tasks.targets(labels_BL)

    assert [label.name for label in tasks.label_columns] == ["click", "buy", "spend", "reports"]
    assert weights_BT.tolist() == [[1, 1, 1, 1], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 1, 0], [1, 0, 0, 0]]
    assert labels_BT[:, 3].tolist() == [5, 0, 0, 0, 0]


def test_rows_that_are_not_available_change_neither_starts_nor_losses() -> None:
    tasks = TaskSet(REPORTED)
    known = torch.tensor([[1.0, 1.0, 5.0, 1.0], [1.0, 0.0, 7.0, 1.0]])
    hidden = torch.tensor([[1.0, 0.0, 900.0, 0.0]])
    logits_BZ = torch.randn(3, 3, requires_grad=True)

    _, cvr, spend = tasks.starts(tasks.label_sums(torch.cat([known, hidden])))
    losses_T = tasks.losses(tasks.row_losses(logits_BZ, *tasks.targets(torch.cat([known, hidden]))))
    losses_T[1:].sum().backward()

    assert (cvr, spend) == tuple(tasks.starts(tasks.label_sums(known))[1:])
    assert logits_BZ.grad is not None
    assert logits_BZ.grad[2].tolist() == [0, 0, 0]


def test_name_of_a_space_says_what_is_available() -> None:
    spaces = TaskSet(REPORTED).spaces

    assert spaces == {"ctr": "all", "cvr": "click & reports", "ctcvr": "reports", "spend": "reports"}


def test_column_that_says_what_is_available_is_no_outcome() -> None:
    assert outcome_columns(REPORTED) == {"click", "buy", "spend"}
    assert outcome_columns({**REPORTED, "r": BinaryTaskConfig(label="reports")}) == {"click", "buy", "spend", "reports"}


def test_logits_of_tasks_stand_side_by_side() -> None:
    tasks = TaskSet(
        {
            "stars": OrdinalTaskConfig(label="stars", levels=Levels.model_validate([1, 2, 3])),
            "ctcvr": ProductTaskConfig(of=("ctr", "cvr")),
            "spend": ZeroInflatedLognormalTaskConfig(label="spend"),
            "ctr": BinaryTaskConfig(label="click"),
            "cvr": BinaryTaskConfig(label="buy", space="click"),
        }
    )
    logits_BZ = torch.tensor([[0.0, -50.0, 50.0, 2.0, -50.0, math.log(3.0), 0.0]])

    predictions_BT = tasks.predict(logits_BZ)

    assert tasks.tower_names == ("stars", "spend", "ctr", "cvr")
    assert [len(tasks.logits[name]) for name in tasks.tower_names] == [2, 3, 1, 1]
    assert tasks.columns("ctcvr") == [5, 6]
    assert tasks.logit_names == ("stars.1-2", "stars.2-3", "spend.any", "spend.mu", "spend.sigma", "ctr", "cvr")
    # Half above the lowest level and as many above the next; a lognormal of no width; 3/4 · 1/2.
    torch.testing.assert_close(predictions_BT, torch.tensor([[2.0, 0.375, math.exp(2.0), 0.75, 0.5]]))


def test_losses_are_in_the_power_of_their_label_s_unit() -> None:
    tasks = TaskSet(
        {
            "ctr": BinaryTaskConfig(label="click"),
            "seconds": RegressionTaskConfig(label="seconds"),
            "late": QuantileTaskConfig(label="late", quantiles=(0.5, 0.9)),
            "spend": ZeroInflatedLognormalTaskConfig(label="spend"),
        }
    )

    units_T = tasks.loss_units(torch.tensor([1.0, 10.0, 3.0, 1.0, 1.0, 7.0, 1.0]))

    assert units_T.tolist() == [1, 100, 3, 1]


CLICK = BinaryTaskConfig(label="click")
BUY = BinaryTaskConfig(label="buy", space="click")
PROBLEMS: list[tuple[dict[str, TaskConfig], str, str]] = [
    ({}, "", "at least one task is needed"),
    ({"a.b": CLICK}, "a.b", "task name 'a.b': use letters of any script"),
    ({"ﬁn": CLICK, "fin": BUY}, "fin", "task name 'fin' is 'ﬁn' in other forms of the same letters"),
    (
        {key: task for key, task in RATINGS.items() if key != "like_and_love"}
        | {"share": BinaryTaskConfig(label="share", space="rating")},
        "share.space",
        "rating may be rating >= 4 or rating >= 5; name the task: like or love",
    ),
    ({"ctr": CLICK.model_copy(update={"weight": 0.0})}, "", "every task has weight 0"),
    ({"ctr": CLICK, "cvr": BinaryTaskConfig(label="buy", space="clik")}, "cvr.space", "did you mean click?"),
    (
        {"ctr": CLICK, "cvr": BinaryTaskConfig(label="buy", space="zzz")},
        "cvr.space",
        "(there are buy, click, ctr, cvr); add such",
    ),
    ({"ctr": BinaryTaskConfig(label="click", space="click")}, "ctr.space", "the task's own label"),
    (
        {"y": RegressionTaskConfig(label="y"), "cvr": BinaryTaskConfig(label="buy", space="y")},
        "cvr.space",
        "y is not the label of a binary task",
    ),
    ({"a": BinaryTaskConfig(label="click", space="buy"), "b": BUY}, "a.space", "must not go in a circle"),
    ({"ctr": BinaryTaskConfig(label="click", available="click")}, "ctr.available", "click is the task's own label"),
    (
        {"a": CLICK, "b": BinaryTaskConfig(label="like"), "c": BUY, "d": BinaryTaskConfig(label="buy", space="like")},
        "c.space",
        "label buy lies in spaces of which none contains the others (click, like)",
    ),
    ({"ctr": CLICK, "p": ProductTaskConfig(of=("ctr", "cvt"))}, "p.of", "no such task: cvt, did you mean ctr?"),
    (
        {"ctr": CLICK, "y": RegressionTaskConfig(label="y", space="click"), "p": ProductTaskConfig(of=("ctr", "y"))},
        "p.of",
        "y is a regression task; only probabilities can be multiplied",
    ),
    (
        {"ctr": CLICK, "p": ProductTaskConfig(of=("ctr", "q")), "q": ProductTaskConfig(of=("ctr", "p"))},
        "p.of",
        "p contains itself through q",
    ),
    (
        {"ctr": CLICK, "cvr": BinaryTaskConfig(label="buy"), "p": ProductTaskConfig(of=("ctr", "cvr"))},
        "p.of",
        "cvr lives in all, but follows ctr, so it must live in click",
    ),
]


@pytest.mark.parametrize(("tasks", "path", "message"), PROBLEMS, ids=[message for _, _, message in PROBLEMS])
def test_tasks_that_do_not_fit_together_are_named(tasks: dict[str, TaskConfig], path: str, message: str) -> None:
    problems = list(task_problems(tasks))

    assert any(found == path and re.search(re.escape(message), text) for found, text in problems), problems


@pytest.mark.parametrize("name", ["点击", "क्लिक", "ctr-7d", "_2", "achat_été", "ﬁnish"])
def test_task_names_are_of_any_script(name: str) -> None:
    assert list(task_problems({name: CLICK})) == []


def test_funnel_in_order_has_no_problems() -> None:
    assert list(task_problems(ESMM)) == []

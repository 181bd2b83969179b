"""What every task kind promises; a new member of the union is tested as soon as it is listed."""

from typing import Any, get_args

import pytest
import torch

from recmoe.tasks import TaskConfig
from recmoe.tasks.binary import BinaryTaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.problems import task_problems

KINDS: tuple[Any, ...] = get_args(get_args(TaskConfig)[0])


def tasks_with(kind: Any) -> dict[str, TaskConfig]:
    """A config that holds a task ``y`` of the kind with its defaults, last, and what it needs before it."""
    if "of" in kind.model_fields:
        first, second = BinaryTaskConfig(label="a"), BinaryTaskConfig(label="b", space="a")
        return {"first": first, "second": second, "y": kind(of=("first", "second"))}
    return {"y": kind(label="b")}


@pytest.fixture(params=KINDS, ids=lambda kind: kind.model_fields["kind"].default)
def tasks(request: pytest.FixtureRequest) -> TaskSet:
    return TaskSet(tasks_with(request.param))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.model_fields["kind"].default)
def test_defaults_work(kind: Any) -> None:
    assert list(task_problems(tasks_with(kind))) == []


def rows_with_label(tasks: TaskSet, label: float) -> torch.Tensor:
    return torch.full((3, len(tasks.label_columns)), label)


def test_absent_label_gives_no_loss_and_no_gradient(tasks: TaskSet) -> None:
    logits_BT = torch.randn(3, len(tasks.tower_names), requires_grad=True)

    losses_T = tasks.losses(logits_BT, *tasks.targets(rows_with_label(tasks, float("nan"))))
    losses_T[-1].backward()

    assert losses_T[-1] == 0
    assert logits_BT.grad is not None
    assert not logits_BT.grad.any()


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_loss_falls_as_the_prediction_nears_the_label(tasks: TaskSet, label: float) -> None:
    labels_BT, weights_BT = tasks.targets(rows_with_label(tasks, label))
    logits = torch.tensor([-3.0, 0.0, 0.5, 2.0, 5.0])

    losses, distances = [], []
    for logit in logits:
        logits_BT = logit.repeat(3, len(tasks.tower_names))
        losses.append(float(tasks.losses(logits_BT, labels_BT, weights_BT)[-1]))
        distances.append(float((tasks.predict(logits_BT)[0, -1] - label).abs()))

    assert sorted(range(5), key=losses.__getitem__) == sorted(range(5), key=distances.__getitem__)


def test_predictions_are_in_the_range_of_the_output(tasks: TaskSet) -> None:
    predictions_BT = tasks.predict(torch.linspace(-40, 40, 9)[:, None].repeat(1, len(tasks.tower_names)))

    assert torch.isfinite(predictions_BT).all()
    if tasks.kinds["y"] == "binary":
        assert ((predictions_BT >= 0) & (predictions_BT <= 1)).all()


def test_gradient_reaches_every_tower_of_the_task(tasks: TaskSet) -> None:
    logits_BT = torch.full((3, len(tasks.tower_names)), 0.3, requires_grad=True)

    tasks.losses(logits_BT, *tasks.targets(rows_with_label(tasks, 1.0)))[-1].backward()

    assert logits_BT.grad is not None
    assert (logits_BT.grad != 0).all()


def test_batch_of_one_is_a_batch(tasks: TaskSet) -> None:
    logits_BT = torch.randn(2, len(tasks.tower_names))

    together_BT = tasks.predict(logits_BT)

    torch.testing.assert_close(torch.cat([tasks.predict(logits_BT[:1]), tasks.predict(logits_BT[1:])]), together_BT)

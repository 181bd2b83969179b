"""What every task kind promises; a new member of the union is tested as soon as it is listed."""

import json
import math
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from recmoe.evaluation.metrics import MEASURES, metric_best
from recmoe.tasks import TASK_KINDS, TaskConfig
from recmoe.tasks.binary import BinaryTaskConfig
from recmoe.tasks.classes import ClassesTaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.mixing import Experts
from recmoe.tasks.problems import task_problems
from recmoe.tasks.regression import RegressionTaskConfig
from recmoe.tasks.task import has_binary_label

NAN = math.nan
# Whether y is 0 or 1, and the list that a row belongs to: every list has both.
LABELS = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.0])
LISTS = torch.tensor([7, 7, 8, 8, 7, 8])


can_mix = pytest.mark.parametrize(
    "kind",
    [BinaryTaskConfig, ClassesTaskConfig, RegressionTaskConfig],
    ids=lambda kind: kind.model_fields["kind"].default,
)
"""Kinds whose experts may each predict by themselves."""


def tasks_with(kind: Any) -> dict[str, TaskConfig]:
    """A config that holds a task ``y`` of the kind with its defaults, last, and what it needs before it."""
    if "of" in kind.model_fields:
        first, second = BinaryTaskConfig(label="a"), BinaryTaskConfig(label="b", space="a")
        return {"first": first, "second": second, "y": kind(of=("first", "second"))}
    return {"y": kind(label="b")}


@pytest.fixture(params=TASK_KINDS, ids=lambda kind: kind.model_fields["kind"].default)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def tasks(kind: Any) -> TaskSet:
    return TaskSet(tasks_with(kind))


def rows_with(tasks: TaskSet, labels_B: torch.Tensor) -> torch.Tensor:
    """The label in every column, so that a product's is the same."""
    return labels_B[:, None].repeat(1, len(tasks.label_columns))


def started(tasks: TaskSet, labels_B: torch.Tensor, *, noise: float = 0.0) -> torch.Tensor:
    """The logits at which training on these labels begins, in every row."""
    starts = tasks.starts(tasks.label_sums(rows_with(tasks, labels_B)))
    logits_BZ = torch.tensor([start.logit for start in starts]).repeat(len(labels_B), 1)
    generator = torch.Generator().manual_seed(0)
    return (logits_BZ + noise * torch.randn(logits_BZ.shape, generator=generator)).requires_grad_()


def loss_of(tasks: TaskSet, logits_BZ: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
    """Of ``y``."""
    targets = tasks.targets(rows_with(tasks, labels_B))
    return tasks.losses(tasks.row_losses(logits_BZ, *targets, LISTS[: len(labels_B)]))[-1]


def test_defaults_work(kind: Any) -> None:
    assert list(task_problems(tasks_with(kind))) == []


def test_config_survives_json(kind: Any) -> None:
    adapter = TypeAdapter[TaskConfig](TaskConfig)
    config = tasks_with(kind)["y"]

    read = adapter.validate_python(json.loads(json.dumps(config.model_dump(mode="json"))))

    assert read == config


def test_absent_label_gives_no_loss_and_no_gradient(tasks: TaskSet) -> None:
    logits_BZ = torch.randn(3, len(tasks.logit_names), requires_grad=True)

    loss = loss_of(tasks, logits_BZ, torch.full((3,), NAN))
    loss.backward()

    assert loss == 0
    assert logits_BZ.grad is not None
    assert not logits_BZ.grad.any()


def test_row_without_a_label_changes_nothing_for_the_others(tasks: TaskSet) -> None:
    logits_BZ = started(tasks, LABELS, noise=0.5)
    labels_B = LABELS.clone()
    labels_B[2] = NAN

    losses = []
    for shift in (0.0, 3.0):
        moved_BZ = logits_BZ.detach().clone()
        moved_BZ[2] += shift
        losses.append(float(loss_of(tasks, moved_BZ, labels_B).detach()))

    assert losses[0] > 0
    assert losses[0] == losses[1]


def test_following_the_gradient_leads_to_the_labels(tasks: TaskSet) -> None:
    logits_BZ = started(tasks, LABELS)
    optimizer = torch.optim.Adam([logits_BZ], lr=0.1)

    for _ in range(300):
        optimizer.zero_grad()
        loss_of(tasks, logits_BZ, LABELS).backward()
        optimizer.step()

    predictions_B = tasks.predict(logits_BZ)[:, -1]
    if tasks.kinds["y"] == "score":
        assert predictions_B[LABELS == 1].min() > predictions_B[LABELS == 0].max()
    else:
        torch.testing.assert_close(predictions_B, LABELS, atol=0.05, rtol=0)


def test_no_constant_beats_the_start_by_much(tasks: TaskSet) -> None:
    logits_BZ = started(tasks, LABELS)
    at_start = float(loss_of(tasks, logits_BZ, LABELS).detach())
    shift_Z = torch.zeros(logits_BZ.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([shift_Z], lr=0.05)

    for _ in range(300):
        optimizer.zero_grad()
        loss = loss_of(tasks, logits_BZ.detach() + shift_Z, LABELS)
        loss.backward()
        optimizer.step()

    # Amounts that are all 1 have no spread: their density has no bound, and is no measure of the start.
    if "sigma" not in "".join(tasks.logit_names):
        assert at_start - float(loss.detach()) < 0.1


def test_predictions_are_in_the_range_of_the_output(tasks: TaskSet) -> None:
    predictions_BT = tasks.predict(torch.linspace(-40, 40, 9)[:, None].repeat(1, len(tasks.logit_names)))

    assert torch.isfinite(predictions_BT).all()
    if tasks.kinds["y"] == "binary":
        assert ((predictions_BT >= 0) & (predictions_BT <= 1)).all()


def test_gradient_reaches_every_logit_of_the_task(tasks: TaskSet) -> None:
    logits_BZ = started(tasks, LABELS, noise=0.3)

    loss_of(tasks, logits_BZ, LABELS).backward()

    assert logits_BZ.grad is not None
    assert (logits_BZ.grad != 0).any(dim=0).all()


def test_batch_of_one_is_a_batch(tasks: TaskSet) -> None:
    logits_BZ = torch.randn(2, len(tasks.logit_names))

    together_BT = tasks.predict(logits_BZ)

    torch.testing.assert_close(torch.cat([tasks.predict(logits_BZ[:1]), tasks.predict(logits_BZ[1:])]), together_BT)


def test_measures_are_those_that_the_config_lists(kind: Any, tasks: TaskSet) -> None:
    logits_BZ = started(tasks, LABELS, noise=0.3)
    labels_BT, _ = tasks.targets(rows_with(tasks, LABELS))

    measures = tasks.measures(logits_BZ, labels_BT)["y"]

    assert tuple(measures) == tasks.measure_names["y"]
    assert {name.split("@")[0] for name in measures} <= set(kind.measures) <= set(MEASURES)
    assert all(metric_best(f"y.{name}[all]") == MEASURES[name.split("@")[0]].best for name in measures)
    assert all(measure_B.shape == (6,) and torch.isfinite(measure_B).all() for measure_B in measures.values())


def test_error_is_least_at_its_constant(tasks: TaskSet) -> None:
    labels_N = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0] if has_binary_label(tasks.kinds["y"]) else [0.0, 1, 2, 9, 1])
    error = tasks.error("y")
    constant = error.constant(labels_N.double())

    least = error.losses(constant.expand(5), labels_N.double()).mean()
    beside = [error.losses((constant + step).expand(5), labels_N.double()).mean() for step in (-0.05, 0.05)]

    assert least <= min(beside)
    assert not error.losses(labels_N.clamp(1e-7, None), labels_N).round(decimals=4).any()


def test_scale_keeps_the_order_and_comes_back(tasks: TaskSet) -> None:
    values_N = torch.tensor([-5.0, -0.5, 0.0, 0.5, 300.0])
    scale = tasks.scale("y")

    on_scale_N = scale.to(values_N)

    assert (on_scale_N.diff() > 0).all()
    torch.testing.assert_close(scale.back(on_scale_N), values_N)


def imitations_of(
    tasks: TaskSet, logits_BZ: torch.Tensor, teacher_BZ: torch.Tensor, labels_B: torch.Tensor = LABELS
) -> torch.Tensor:
    """Of ``y``, at a temperature of 2."""
    rows_BL = rows_with(tasks, labels_B)
    return tasks.imitations(("y",), logits_BZ, teacher_BZ, rows_BL, LISTS[: len(labels_B)], temperature=2.0)[0]


def test_student_is_at_no_distance_from_itself_and_at_some_from_others(tasks: TaskSet) -> None:
    teacher_BZ = started(tasks, LABELS, noise=0.5).detach()

    here = imitations_of(tasks, teacher_BZ, teacher_BZ)
    there = [imitations_of(tasks, started(tasks, LABELS, noise=noise).detach(), teacher_BZ) for noise in (-0.5, 0.0)]

    assert abs(float(here)) < 1e-6
    assert all(float(loss) > 1e-3 for loss in there)


def test_following_the_teacher_leads_to_its_predictions(tasks: TaskSet) -> None:
    teacher_BZ = started(tasks, LABELS, noise=0.5).detach()
    logits_BZ = started(tasks, LABELS)
    optimizer = torch.optim.Adam([logits_BZ], lr=0.05)

    for step in range(800):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 800)
        optimizer.zero_grad()
        imitations_of(tasks, logits_BZ, teacher_BZ).backward()
        optimizer.step()

    wanted_B, found_B = tasks.predict(teacher_BZ)[:, -1], tasks.predict(logits_BZ)[:, -1]
    if tasks.kinds["y"] == "score":
        # Of a list only the differences between its scores are learned.
        for group in LISTS.unique():
            of_list = group == LISTS
            wanted_B[of_list] -= wanted_B[of_list].mean()
            found_B = torch.where(of_list, found_B - found_B[of_list].mean(), found_B)
    torch.testing.assert_close(found_B, wanted_B, atol=0.02, rtol=0.02)


def test_teacher_teaches_rows_without_a_label_too(tasks: TaskSet) -> None:
    logits_BZ, teacher_BZ = started(tasks, LABELS), started(tasks, LABELS, noise=0.5).detach()
    only_last_B = LABELS.clone()
    only_last_B[:-1] = NAN

    with_labels = imitations_of(tasks, logits_BZ, teacher_BZ)
    without = imitations_of(tasks, logits_BZ, teacher_BZ, only_last_B)

    assert float(with_labels.detach()) == float(without.detach())


@can_mix
def test_mixture_predicts_the_mean_of_its_experts_and_loses_no_more_than_they_do_on_average(tasks: TaskSet) -> None:
    logits_EBK = torch.stack([started(tasks, LABELS, noise=noise).detach() for noise in (0.5, -1.0, 1.5)])
    shares_EB = torch.softmax(torch.randn(3, 6, generator=torch.Generator().manual_seed(1)), dim=0)
    mixture = {"y": Experts(logits_EBK, shares_EB, 1.0)}
    targets = tasks.targets(rows_with(tasks, LABELS))

    logits_BK = tasks.mixing("y").join(mixture["y"])
    losses_B1 = tasks.row_losses(logits_BK, *targets, LISTS, mixture)

    predictions_EB = torch.stack([tasks.predict(one_BK)[:, 0] for one_BK in logits_EBK])
    torch.testing.assert_close(tasks.predict(logits_BK)[:, 0], (shares_EB * predictions_EB).sum(dim=0))
    each_EB = torch.stack([tasks.row_losses(one_BK, *targets, LISTS)[:, 0] for one_BK in logits_EBK])
    assert (losses_B1[:, 0] <= (shares_EB * each_EB).sum(dim=0)).all()


@can_mix
def test_mixture_of_experts_that_agree_is_any_of_them(tasks: TaskSet) -> None:
    logits_BK = started(tasks, LABELS, noise=0.5).detach()
    mixture = {"y": Experts(torch.stack([logits_BK] * 2), torch.tensor([[0.25], [0.75]]).expand(2, 6), 1.0)}
    targets = tasks.targets(rows_with(tasks, LABELS))

    losses_B1 = tasks.row_losses(tasks.mixing("y").join(mixture["y"]), *targets, LISTS, mixture)

    torch.testing.assert_close(losses_B1, tasks.row_losses(logits_BK, *targets, LISTS))

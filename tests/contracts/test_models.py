"""One contract for the model of every kind of architecture, those with losses of their own too."""

from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from recmoe.architectures import ArchitectureConfig
from recmoe.architectures.seam import Inputs, Outputs, Parts, Targets, copy_group
from recmoe.axes import describe
from recmoe.moe.linear import SidedInput
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.tower import TowerConfig

KINDS = get_args(get_args(ArchitectureConfig)[0])
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.model_fields["kind"].default)

TASKS = {
    "click": {"kind": "binary", "label": "click"},
    "buy": {"kind": "binary", "label": "buy"},
    "rate": {"kind": "binary", "label": "rate"},
}


def parts_of(kind: type[ArchitectureConfig], names: tuple[str, ...] = ("click", "buy", "rate")) -> Parts:
    tasks = TaskSet(TypeAdapter(dict[str, TaskConfig]).validate_python({name: TASKS[name] for name in names}))
    return Parts(
        widths={"all": 6, **{copy_group(copy): 6 for copy in kind().copies(tasks)}},
        tasks=tasks,
        make_tower=lambda width, name: TowerConfig().build(in_features=width, logits=tasks.logits[name]),
    )


def model_of(kind: type[ArchitectureConfig], *, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return kind().assemble(parts_of(kind)).eval()


def inputs_of(kind: type[ArchitectureConfig], x: torch.Tensor | SidedInput) -> Inputs:
    """The rows, as every copy that the kind asks for too."""
    return Inputs(x, {copy_group(copy): x for copy in kind().copies(parts_of(kind).tasks)})


def targets_of(num_rows: int) -> Targets:
    torch.manual_seed(5)
    labels_BT = (torch.rand(num_rows, 3) < 0.5).float()
    return Targets(labels_BT, torch.ones(num_rows, 3))


@every_kind
@pytest.mark.parametrize("num_rows", [1, 5])
def test_every_logit_is_a_column(kind: type[ArchitectureConfig], num_rows: int) -> None:
    outputs = model_of(kind)(inputs_of(kind, torch.randn(num_rows, 6)))

    assert outputs.logits_BZ.shape == (num_rows, 3)


@every_kind
def test_row_does_not_depend_on_its_neighbours(kind: type[ArchitectureConfig]) -> None:
    model = model_of(kind)
    x_BD = torch.randn(20, 6)

    alone_BZ = torch.cat([model(inputs_of(kind, x_1D)).logits_BZ for x_1D in x_BD.split(1)])

    torch.testing.assert_close(model(inputs_of(kind, x_BD)).logits_BZ, alone_BZ, rtol=0, atol=1e-5)


@every_kind
def test_sided_input_equals_the_concatenated_one(kind: type[ArchitectureConfig]) -> None:
    model = model_of(kind)
    x = SidedInput(shared_RS=torch.randn(2, 4), own_CI=torch.randn(5, 2), request_C=torch.tensor([0, 0, 1, 1, 0]))

    logits_BZ = model(inputs_of(kind, x)).logits_BZ

    torch.testing.assert_close(logits_BZ, model(inputs_of(kind, x.concatenated())).logits_BZ, rtol=0, atol=1e-5)


@every_kind
def test_model_begins_at_zero(kind: type[ArchitectureConfig]) -> None:
    model = model_of(kind)

    model.begin_at_zero()

    assert not model(inputs_of(kind, torch.randn(5, 6))).logits_BZ.any()


@every_kind
def test_own_losses_are_those_that_it_names_and_can_be_differentiated(kind: type[ArchitectureConfig]) -> None:
    model = model_of(kind).train()
    outputs: Outputs = model(inputs_of(kind, torch.randn(50, 6)))

    losses = model.losses(outputs, targets_of(50))

    assert losses.keys() == model.loss_weights.keys()
    assert all(loss.dim() == 0 and loss.isfinite() and loss.requires_grad for loss in losses.values())


@every_kind
def test_every_weight_says_what_it_belongs_to(kind: type[ArchitectureConfig]) -> None:
    model = model_of(kind)

    described = describe(model)

    assert described.keys() == model.state_dict().keys()


@every_kind
def test_weights_of_a_task_keep_their_names_when_a_task_is_put_in_front(kind: type[ArchitectureConfig]) -> None:
    torch.manual_seed(0)
    before = {one.name for one in describe(kind().assemble(parts_of(kind, ("buy", "rate")))).values()}
    after = {one.name for one in describe(kind().assemble(parts_of(kind))).values()}

    assert before <= after

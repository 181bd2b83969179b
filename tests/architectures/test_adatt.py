"""AdaTT: the paper's fusion row by row, what is read around the gates, and who reaches whom."""

from functools import partial

import pytest
import torch
from torch import Tensor

from recmoe.architectures.adatt import AdaTT, AdaTTConfig
from recmoe.axes import describe
from recmoe.moe.experts import Form
from recmoe.moe.gates import SoftmaxGateConfig, TopKGateConfig
from recmoe.moe.mixture import MixtureConfig
from recmoe.tasks.binary import BinaryTaskConfig
from recmoe.tasks.funnel import TaskSet
from tests.parity.naive import HIDDEN, WIDTH, assert_equal_to_paper, mix, run_expert, run_gate

Gate = SoftmaxGateConfig | TopKGateConfig

COUNTS = {"one task": {"a": 2}, "one expert each": {"a": 1, "b": 1}, "unequal tasks": {"a": 3, "b": 1, "c": 2}}


def model_of(
    tasks: dict[str, int],
    *,
    num_shared: int = 0,
    num_levels: int = 2,
    gate: Gate = SoftmaxGateConfig(),  # noqa: B008
    form: Form = "auto",
) -> AdaTT:
    torch.manual_seed(0)
    return AdaTT(
        in_features=WIDTH,
        num_levels=num_levels,
        num_task_experts=tasks,
        num_shared_experts=num_shared,
        make_layer=partial(MixtureConfig(expert_hidden=HIDDEN, gate=gate).layer, form=form),
    )


@pytest.mark.parametrize(
    ("gate", "form"),
    [(SoftmaxGateConfig(), "loop"), (SoftmaxGateConfig(), "batched"), (TopKGateConfig(k=2), "loop")],
    ids=["softmax", "softmax batched", "top_k"],
)
@pytest.mark.parametrize("tasks", list(COUNTS.values()), ids=list(COUNTS))
@pytest.mark.parametrize("num_shared", [0, 1, 2])
@pytest.mark.parametrize("num_levels", [1, 3])
@pytest.mark.parametrize("num_rows", [1, 4])
def test_representations_equal_the_fusion_level_by_level(
    num_rows: int, num_levels: int, num_shared: int, tasks: dict[str, int], gate: Gate, form: Form
) -> None:
    model = model_of(tasks, num_shared=num_shared, num_levels=num_levels, gate=gate, form=form).double()
    counts = [*tasks.values(), *[num_shared] * (num_shared > 0)]
    owner_of_expert = [owner for owner, count in enumerate(counts) for _ in range(count)]

    def paper(x_D: Tensor) -> list[Tensor]:
        streams = [x_D] * len(counts)
        for level, layer in enumerate(model.levels):
            outputs = [
                run_expert(layer.experts, expert, streams[owner]) for expert, owner in enumerate(owner_of_expert)
            ]
            learned = iter([] if layer.around.learned_N is None else layer.around.learned_N)
            fused = []
            for owner in range(len(tasks) if level == num_levels - 1 else len(counts)):
                own = [output for output, of in zip(outputs, owner_of_expert, strict=True) if of == owner]
                # The native experts' linear fusion: v · E, or the one expert as it is.
                native = mix(torch.stack([next(learned) for _ in own]), own) if len(own) > 1 else own[0]
                # The gated fusion of all experts: softmax(W · f) · E.
                fused.append(mix(run_gate(layer.gates[owner], streams[owner]), outputs) + native)
            streams = fused
        return streams

    assert_equal_to_paper(model, paper, num_rows=num_rows, num_tasks=len(tasks))


def test_shared_stream_has_a_gate_at_every_level_but_the_last() -> None:
    model = model_of({"click": 2, "buy": 1}, num_shared=1)

    _, uses = model(torch.randn(4, WIDTH))

    assert [use.gates for use in uses] == [("click", "buy", "shared"), ("click", "buy")]
    assert uses[1].experts == ("click.0", "click.1", "buy.0", "shared.0")
    assert all((use.weights_BGE > 0).all() for use in uses)


def test_what_is_read_around_a_gate_is_learned_where_a_task_owns_several_experts() -> None:
    model = model_of({"click": 2, "buy": 1}, num_shared=2)

    first, last = model.levels

    # In the last level no stream owns the shared experts.
    assert describe(first)["around.learned_N"].axes == (("click.0", "click.1", "shared.0", "shared.1"),)
    assert describe(last)["around.learned_N"].axes == (("click.0", "click.1"),)
    assert last.around()[1].tolist() == [0, 0, 1, 0, 0]
    assert model_of({"click": 1, "buy": 1}).levels[0].around.learned_N is None


def test_every_task_learns_from_the_experts_of_all() -> None:
    model = model_of({"click": 2, "buy": 1})

    model(torch.randn(50, WIDTH))[0][1].sum().backward()

    for layer in model.levels:
        gradient_EOD = layer.experts.weights_EOD[0].grad
        assert all(bool(gradient.any()) for gradient in gradient_EOD)
    # Of what is read around the gates, its own alone: click's stays without a gradient in the last level.
    assert not model.levels[-1].around.learned_N.grad.any()
    assert model.levels[0].around.learned_N.grad.any()


def test_numbers_of_experts_that_do_not_name_the_tasks_are_a_problem_of_the_config() -> None:
    tasks = TaskSet({"click": BinaryTaskConfig(label="click"), "buy": BinaryTaskConfig(label="buy")})

    problems = list(AdaTTConfig(num_task_experts={"click": 1, "like": 2}).task_problems(tasks, ()))

    assert problems == [
        (
            "num_task_experts",
            "num_task_experts must give one number for each of the tasks click, buy; missing: buy; unknown: like",
        )
    ]

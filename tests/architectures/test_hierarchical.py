"""Hierarchical mixtures: the papers' equation row by row, sparse gates at both levels, and their names."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from recmoe.architectures.hierarchical import Hierarchical, HierarchicalConfig
from recmoe.axes import describe
from recmoe.moe.balance.bias import BiasConfig
from recmoe.moe.balance.load import LoadConfig
from recmoe.moe.balance.z_loss import z_loss
from recmoe.moe.experts import Form
from recmoe.moe.gates import SoftmaxGateConfig, TopKGateConfig
from recmoe.moe.gates.mlp import MlpGateConfig
from recmoe.moe.gates.noisy_top_k import NoisyTopKGateConfig
from recmoe.moe.mixture import MixtureConfig
from tests.parity.naive import HIDDEN, WIDTH, assert_equal_to_paper, mix, run_expert, run_gate

Gate = SoftmaxGateConfig | TopKGateConfig | MlpGateConfig | NoisyTopKGateConfig


def model_of(
    num_tasks: int,
    *,
    gate: Gate = SoftmaxGateConfig(),  # noqa: B008
    num_groups: int = 3,
    num_group_experts: int = 2,
    form: Form = "auto",
) -> Hierarchical:
    torch.manual_seed(0)
    return Hierarchical(
        in_features=WIDTH,
        task_names=[f"task{task}" for task in range(num_tasks)],
        num_groups=num_groups,
        num_group_experts=num_group_experts,
        make_layer=partial(MixtureConfig(expert_hidden=HIDDEN).layer, form=form),
        make_gate=gate.build,
    )


@pytest.mark.parametrize(
    ("gate", "form"),
    [(SoftmaxGateConfig(), "loop"), (SoftmaxGateConfig(), "batched"), (TopKGateConfig(k=2), "loop")],
    ids=["softmax", "softmax batched", "top_k"],
)
@pytest.mark.parametrize("num_rows", [1, 4])
@pytest.mark.parametrize("num_tasks", [1, 3])
@pytest.mark.parametrize(("num_groups", "num_group_experts"), [(3, 2), (2, 3)])
def test_representations_equal_the_sum_over_groups_and_their_experts(
    num_groups: int, num_group_experts: int, num_tasks: int, num_rows: int, gate: Gate, form: Form
) -> None:
    model = model_of(
        num_tasks, gate=gate, num_groups=num_groups, num_group_experts=num_group_experts, form=form
    ).double()

    def paper(x_D: Tensor) -> list[Tensor]:
        h = []
        for task in range(num_tasks):
            gates = model.layer.gates[task]
            # Eq. 12: y_H = Σ_i Σ_j G_primary(x)_i · G_i(x)_j · E_(i,j)(x)
            of_groups = []
            for group in range(num_groups):
                first = group * num_group_experts
                outputs = [run_expert(model.layer.experts, first + own, x_D) for own in range(num_group_experts)]
                of_groups.append(mix(run_gate(gates.secondary[group], x_D), outputs))
            h.append(mix(run_gate(gates.primary, x_D), of_groups))
        return h

    assert_equal_to_paper(model, paper, num_rows=num_rows, num_tasks=num_tasks)


def test_experts_of_groups_that_are_not_chosen_are_not_computed() -> None:
    model = model_of(1, gate=TopKGateConfig(k=1), num_groups=4, num_group_experts=3)

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        _, (use,) = model(torch.randn(100, WIDTH))

    assert model.layer.num_used == (1,)
    assert (use.weights_BGE > 0).sum(dim=2).eq(1).all()
    # One expert per row; and the products of the gate over 4 groups and of those over 3 experts.
    expert, gates = WIDTH * HIDDEN[0] + HIDDEN[0] * HIDDEN[1], WIDTH * (4 + 4 * 3)
    assert counter.get_total_flops() == 2 * 100 * (expert + gates)


def test_no_more_experts_are_used_than_both_levels_choose() -> None:
    model = HierarchicalConfig(num_groups=4, num_group_experts=4, gate=TopKGateConfig(k=2)).build(
        in_features=WIDTH, task_names=("click", "buy")
    )

    _, (use,) = model(torch.randn(50, WIDTH))

    assert model.layer.num_used == (4, 4)
    assert (use.weights_BGE > 0).sum(dim=2).eq(4).all()


def test_gates_name_the_groups_and_the_experts_of_each() -> None:
    described = describe(model_of(1, num_groups=2))

    assert described["layer.gates.0.primary.weight_VD"].axes == (("group0", "group1"), None)
    inner = described["layer.gates.0.secondary.1.weight_VD"]
    assert inner.name == "layer.gates[task0].secondary[group1].weight_VD"
    assert inner.axes == (("group1.0", "group1.1"), None)


def test_gates_of_any_kind_stand_at_both_levels() -> None:
    model = model_of(2, gate=MlpGateConfig(hidden=(3,)))

    _, (use,) = model(torch.randn(5, WIDTH))

    torch.testing.assert_close(use.weights_BGE.sum(dim=2), torch.ones(5, 2))
    assert not model.layer.is_sparse


@pytest.mark.parametrize("gate", [SoftmaxGateConfig(), MlpGateConfig(hidden=(3,))], ids=lambda gate: gate.kind)
def test_z_loss_is_that_of_the_gates_of_both_levels(gate: Gate) -> None:
    model = model_of(2, gate=gate)
    x_BD = torch.randn(5, WIDTH)

    loss = z_loss(model(x_BD)[1])

    squares = []
    for of_task in model.layer.gates:
        for single in (of_task.primary, *of_task.secondary):
            first = single.first(x_BD) if gate.kind == "mlp" else x_BD
            logits_BV = single.others(first) if gate.kind == "mlp" else first @ single.weight_VD.t()
            squares.append(logits_BV.exp().sum(dim=1).log().square().mean())
    torch.testing.assert_close(loss, torch.stack(squares).mean())


def test_bias_moves_the_choice_at_both_levels() -> None:
    model = model_of(1, gate=TopKGateConfig(k=1))
    BiasConfig().prepare(model)

    BiasConfig(rate=0.1).build(task_names=("task0",))(model(torch.randn(7, WIDTH))[1])

    (gate,) = model.layer.gates
    assert all(single.bias_V.any() for single in (gate.primary, *gate.secondary))


def test_load_has_a_gradient_at_both_levels() -> None:
    model = model_of(1, gate=NoisyTopKGateConfig(k=1))

    LoadConfig().build(task_names=("task0",))(model(torch.randn(50, WIDTH))[1]).backward()

    (gate,) = model.layer.gates
    assert all(single.weight_VD.grad.any() for single in (gate.primary, *gate.secondary))

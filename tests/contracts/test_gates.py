"""One contract for every gate of the union."""

from collections.abc import Sequence
from typing import get_args

import pytest
import torch
from pydantic import BaseModel, TypeAdapter
from torch import nn

from recmoe.axes import EXPERTS, of_all_experts
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.experts import MlpExperts
from recmoe.moe.gates import GateConfig, SoftmaxGate, SoftmaxGateConfig
from recmoe.moe.gates.gate import LinearForm, untaught_by
from recmoe.moe.linear import SidedInput

CONFIGS = [config_class() for config_class in get_args(get_args(GateConfig)[0])]
every_gate = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
LEARNING = [
    config
    for config in CONFIGS
    if {name for name, _ in config.build(in_features=6, num_experts=4).named_parameters()} - untaught_by(config)
]
learning_gate = pytest.mark.parametrize("config", LEARNING, ids=lambda config: config.kind)
both_modes = pytest.mark.parametrize("is_training", [True, False], ids=["training", "serving"])


def gate_of(config: GateConfig, *, num_experts: int = 4, is_training: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return config.build(in_features=6, num_experts=num_experts).train(is_training)


def layer_of(gates: Sequence[nn.Module]) -> ExpertLayer:
    """Gates over four experts: all but the last read the first of two inputs."""
    torch.manual_seed(1)
    return ExpertLayer(
        experts=MlpExperts(reads={f"shared.{expert}": 0 for expert in range(4)}, in_features=6, hidden=(3,)),
        gates=gates,
        gate_names=[f"task{gate}" for gate in range(len(gates))],
        input_of_gate=[0] * (len(gates) - 1) + [1],
        mask_GE=[[True] * 4] * len(gates),
    )


def assert_layer_weighs_as_its_gates_do(gates: Sequence[nn.Module]) -> None:
    inputs = [torch.randn(50, 6), torch.randn(50, 6)]
    layer = layer_of(gates)

    torch.manual_seed(2)
    weights, _ = layer.route(inputs)

    torch.manual_seed(2)
    called = [gate(inputs[read]) for gate, read in zip(gates, layer.input_of_gate, strict=True)]
    torch.testing.assert_close(weights, called, rtol=0, atol=1e-6)


@every_gate
@both_modes
def test_layer_weighs_as_its_gates_do_when_they_are_called(config: GateConfig, is_training: bool) -> None:
    torch.manual_seed(0)
    gates = [config.build(in_features=6, num_experts=4).train(is_training) for _ in range(3)]

    assert_layer_weighs_as_its_gates_do(gates)


@every_gate
def test_gate_shares_a_layer_with_any_other(config: GateConfig) -> None:
    softmax = SoftmaxGateConfig().build(in_features=6, num_experts=4)

    assert_layer_weighs_as_its_gates_do([gate_of(config), softmax, gate_of(config), softmax])


def test_gate_whose_product_says_something_else_than_its_call_is_found_out() -> None:
    class TwoFaced(SoftmaxGate):
        def linear_form(self) -> LinearForm:
            return LinearForm(self.weight_VD, lambda logits_BV: torch.softmax(2 * logits_BV, dim=1))

    with pytest.raises(AssertionError, match="not close"):
        assert_layer_weighs_as_its_gates_do([TwoFaced(in_features=6, num_experts=4) for _ in range(2)])


@every_gate
def test_every_axis_of_the_experts_is_named(config: GateConfig) -> None:
    few, more = gate_of(config, num_experts=4), gate_of(config, num_experts=5)

    axes = few.weight_axes()

    grown = {
        (name, axis)
        for name, weight in few.state_dict().items()
        for axis, size in enumerate(weight.shape)
        if size != more.state_dict()[name].shape[axis]
    }
    named = {(name, axis): of for name, labels in axes.items() for axis, of in enumerate(labels) if of is not None}
    assert grown == {place for place, of in named.items() if of is EXPERTS or of == of_all_experts(len(of))}


@every_gate
def test_no_row_uses_more_experts_than_the_gate_says(config: GateConfig) -> None:
    gate = gate_of(config, num_experts=7)

    num_used_B = (gate(torch.randn(50, 6)) > 0).sum(dim=1)

    assert num_used_B.max() == gate.num_used or gate.num_used == 7


@every_gate
def test_kind_alone_is_a_config_that_works(config: GateConfig) -> None:
    parsed = TypeAdapter(GateConfig).validate_python({"kind": config.kind})

    assert parsed == config
    assert isinstance(parsed, BaseModel)


@every_gate
@pytest.mark.parametrize("num_rows", [1, 50])
@pytest.mark.parametrize("num_experts", [1, 2, 7])
@both_modes
def test_weights_are_shares_of_one_where_the_gate_says_so(
    config: GateConfig, num_rows: int, num_experts: int, is_training: bool
) -> None:
    gate = gate_of(config, num_experts=num_experts, is_training=is_training)

    p_BV = gate(torch.randn(num_rows, 6))

    assert p_BV.shape == (num_rows, num_experts)
    assert p_BV.dtype == torch.float32
    assert p_BV.min() >= 0
    if gate.sums_to_one:
        torch.testing.assert_close(p_BV.sum(1), torch.ones(num_rows))


@every_gate
def test_gate_whose_weights_do_not_sum_to_one_says_so(config: GateConfig) -> None:
    gate = gate_of(config, num_experts=7)

    sums_B = gate(torch.randn(500, 6)).sum(1)

    assert gate.sums_to_one == torch.allclose(sums_B, torch.ones(500))


@every_gate
def test_sparse_gate_says_so(config: GateConfig) -> None:
    gate = gate_of(config, num_experts=7)
    # A gate that gets sparse as it trains is so on rows that lie far apart; a softmax would underflow there.
    x_BD = torch.randn(50, 6) * (1000.0 if gate.is_sparse else 1.0)

    has_zeros = bool((gate(x_BD) == 0).any())

    assert gate.is_sparse == has_zeros


@learning_gate
def test_gate_that_is_sparse_in_training_needs_nothing_from_experts_of_weight_zero(config: GateConfig) -> None:
    gate = gate_of(config, num_experts=7, is_training=True)
    x_BD = torch.randn(50, 6) * (1000.0 if gate.is_sparse else 1.0)
    slope_BV = torch.randn(50, 7)

    def gradient_with(*, zeros: float) -> list[torch.Tensor]:
        torch.manual_seed(1)
        p_BV = gate(x_BD)
        of_weights_BV = torch.where(p_BV.detach() == 0, zeros * slope_BV, slope_BV)
        taught = [weight for name, weight in gate.named_parameters() if name not in untaught_by(config)]
        return list(torch.autograd.grad(p_BV, taught, of_weights_BV))

    whole, without_zeros = gradient_with(zeros=1.0), gradient_with(zeros=0.0)
    needs_nothing = all(torch.allclose(*pair) for pair in zip(whole, without_zeros, strict=True))
    assert needs_nothing or not gate.is_sparse


@every_gate
def test_gradient_reaches_the_input_and_the_weights(config: GateConfig) -> None:
    gate = gate_of(config, is_training=True)
    x_BD = torch.randn(50, 6, requires_grad=True)

    p_BV = gate(x_BD)
    if p_BV.requires_grad:
        p_BV.square().sum().backward()

    weights = {"x": x_BD, **dict(gate.named_parameters())}
    moved = {name for name, weight in weights.items() if weight.grad is not None and weight.grad.any()}
    assert moved == weights.keys() - untaught_by(config)


@learning_gate
def test_gate_learns_which_expert_a_row_needs(config: GateConfig) -> None:
    # Rows of three bits; the first says which of two numbers is wanted, and each of four experts knows one.
    x_BD = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3).repeat(4, 2)
    wanted_B, y_V = x_BD[:, 0], torch.tensor([1.0, -1.0, 1.0, -1.0])

    def largest_error(seed: int) -> float:
        torch.manual_seed(seed)
        gate = config.build(in_features=6, num_experts=4)
        optimizer = torch.optim.Adam(gate.parameters(), lr=0.05)
        for _ in range(150):
            loss = (gate(x_BD) @ y_V - wanted_B).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return (gate.eval()(x_BD) @ y_V - wanted_B).abs().max().item()

    # Top-k without noise never hears of a better expert where a row begins with none but wrong ones.
    assert min(map(largest_error, range(3))) < 0.5


@every_gate
def test_row_does_not_depend_on_its_neighbours(config: GateConfig) -> None:
    gate = gate_of(config)
    x_BD = torch.randn(50, 6)

    p_BV = gate(x_BD)

    torch.testing.assert_close(torch.cat([gate(x_1D) for x_1D in x_BD.split(1)]), p_BV, rtol=0, atol=1e-6)


@every_gate
def test_sided_input_equals_the_concatenated_one(config: GateConfig) -> None:
    gate = gate_of(config)
    x = SidedInput(shared_RS=torch.randn(3, 4), own_CI=torch.randn(20, 2), request_C=torch.randint(3, (20,)))

    torch.testing.assert_close(gate(x), gate(x.concatenated()), rtol=0, atol=1e-6)


@every_gate
def test_gate_runs_in_float32_under_autocast(config: GateConfig) -> None:
    gate = gate_of(config)
    x_BD = torch.randn(50, 6)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        p_BV = gate(x_BD)

    assert torch.equal(p_BV, gate(x_BD))


@every_gate
def test_gate_can_be_exported_for_any_number_of_rows(config: GateConfig) -> None:
    gate = gate_of(config)
    x_BD = torch.randn(50, 6)

    exported = torch.export.export(gate, (torch.randn(8, 6),), dynamic_shapes=({0: torch.export.Dim("rows")},))

    torch.testing.assert_close(exported.module()(x_BD), gate(x_BD))

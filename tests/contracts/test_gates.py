"""One contract for every gate of the union."""

from typing import get_args

import pytest
import torch
from pydantic import BaseModel, TypeAdapter
from torch import nn

from recmoe.moe.gates import GateConfig
from recmoe.moe.linear import SidedInput

CONFIGS = [config_class() for config_class in get_args(get_args(GateConfig)[0])]
every_gate = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)


def gate_of(config: GateConfig, *, num_experts: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return config.build(in_features=6, num_experts=num_experts)


@every_gate
def test_kind_alone_is_a_config_that_works(config: GateConfig) -> None:
    parsed = TypeAdapter(GateConfig).validate_python({"kind": config.kind})

    assert parsed == config
    assert isinstance(parsed, BaseModel)


@every_gate
@pytest.mark.parametrize("num_rows", [1, 50])
@pytest.mark.parametrize("num_experts", [1, 2, 7])
def test_weights_are_shares_of_one(config: GateConfig, num_rows: int, num_experts: int) -> None:
    gate = gate_of(config, num_experts=num_experts)

    p_BV = gate(torch.randn(num_rows, 6))

    assert p_BV.shape == (num_rows, num_experts)
    assert p_BV.dtype == torch.float32
    assert p_BV.min() >= 0
    torch.testing.assert_close(p_BV.sum(1), torch.ones(num_rows))


@every_gate
def test_sparse_gate_says_so(config: GateConfig) -> None:
    gate = gate_of(config, num_experts=7)

    has_zeros = bool((gate(torch.randn(50, 6)) == 0).any())

    assert gate.is_sparse == has_zeros


@every_gate
def test_gradient_reaches_the_input_and_the_weights(config: GateConfig) -> None:
    gate = gate_of(config)
    x_BD = torch.randn(50, 6, requires_grad=True)

    gate(x_BD).square().sum().backward()

    assert x_BD.grad is not None
    assert x_BD.grad.abs().sum() > 0
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in gate.parameters())


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

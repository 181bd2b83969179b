"""ReLU gate: the paper's equation row by row; rows that switch on none."""

import pytest
import torch

from recmoe.moe.balance.importance import importance_loss
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.experts import Form
from recmoe.moe.gates.relu import ReluGate, ReluGateConfig
from recmoe.moe.mixture import MixtureConfig

both_forms = pytest.mark.parametrize("form", ["loop", "batched"])


def layer_of(form: Form) -> ExpertLayer:
    """Three experts and two gates."""
    torch.manual_seed(0)
    return MixtureConfig(expert_hidden=(4,), gate=ReluGateConfig()).layer(
        experts={f"shared.{expert}": 0 for expert in range(3)},
        gates={"ctr": 0, "cvr": 0},
        mask_GE=[[True] * 3] * 2,
        in_features=5,
        form=form,
    )


def test_weights_equal_the_equation_row_by_row() -> None:
    torch.manual_seed(0)
    gate = ReluGate(in_features=5, num_experts=3).requires_grad_(False)
    x_BD = torch.randn(6, 5)

    p_BV = gate(x_BD)

    expected = [[max(0.0, float(w_D @ x_D)) for w_D in gate.weight_VD] for x_D in x_BD]
    torch.testing.assert_close(p_BV, torch.tensor(expected))


@both_forms
def test_layer_mixes_weights_of_any_sum(form: Form) -> None:
    layer = layer_of(form)
    x_BD = 3.0 * torch.randn(20, 5)

    h, use = layer([x_BD])

    y_BEH = torch.stack(layer.experts([x_BD]), dim=1)
    expected = torch.einsum("bge,beh->gbh", use.weights_BGE, y_BEH)
    assert not use.sums_to_one
    torch.testing.assert_close(torch.stack(h), expected, rtol=0, atol=1e-5)


@both_forms
@pytest.mark.parametrize("num_rows", [1, 4])
def test_rows_that_switch_on_no_expert_have_zeros_and_send_no_gradient(form: Form, num_rows: int) -> None:
    layer = layer_of(form)
    for gate in layer.gates:
        gate.weight_VD.data.abs_()
    x_BD = -torch.rand(num_rows, 5)

    h, use = layer([x_BD])
    loss = torch.stack(h).square().sum() + importance_loss([use])
    gradients = torch.autograd.grad(loss, list(layer.parameters()), allow_unused=True, materialize_grads=True)

    assert not any(h_BH.any() for h_BH in h)
    assert loss.isfinite()
    assert not any(gradient.any() for gradient in gradients)

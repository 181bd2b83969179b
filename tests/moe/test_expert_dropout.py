"""Expert dropout: whole experts left out row by row, the weights of the others scaled up; in training alone."""

import pytest
import torch

from recmoe.moe.expert_dropout import drop_experts
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.experts import Form
from recmoe.moe.gates import SoftmaxGateConfig, TopKGateConfig
from recmoe.moe.mixture import MixtureConfig


def layer(
    expert_dropout: float,
    gate: SoftmaxGateConfig | TopKGateConfig = SoftmaxGateConfig(),  # noqa: B008
    form: Form = "auto",
) -> ExpertLayer:
    torch.manual_seed(0)
    return MixtureConfig(expert_hidden=(8, 4), expert_dropout=expert_dropout, gate=gate).layer(
        experts={f"shared.{expert}": 0 for expert in range(4)},
        gates={"a": 0, "b": 0},
        mask_GE=[[True] * 4, [True, True, True, False]],
        in_features=6,
        form=form,
    )


def test_weights_equal_the_formula_row_by_row() -> None:
    torch.manual_seed(0)
    p_BV = torch.softmax(torch.randn(50, 4), dim=1)

    torch.manual_seed(1)
    q_BV = drop_experts(p_BV, 0.6)

    torch.manual_seed(1)
    draws_BV = torch.rand(50, 4)
    for p_V, draws_V, q_V in zip(p_BV.tolist(), draws_BV.tolist(), q_BV.tolist(), strict=True):
        kept = [v for v in range(4) if draws_V[v] >= 0.6] or range(4)
        total = sum(p_V[v] for v in kept)
        assert q_V == pytest.approx([p_V[v] / total if v in kept else 0.0 for v in range(4)])


def test_sum_of_weights_stays_what_it_was() -> None:
    torch.manual_seed(0)
    p_BV = torch.rand(100, 5)

    q_BV = drop_experts(p_BV, 0.5)

    torch.testing.assert_close(q_BV.sum(1), p_BV.sum(1))


def test_gradient_is_finite_where_a_row_would_lose_all_experts() -> None:
    p_BV = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.0, 0.0]]).repeat(100, 1).requires_grad_()

    drop_experts(p_BV, 0.9).square().sum().backward()

    assert p_BV.grad is not None
    assert p_BV.grad.isfinite().all()


@pytest.mark.parametrize("form", ["loop", "batched"])
@pytest.mark.parametrize("gate", [SoftmaxGateConfig(), TopKGateConfig(k=2)], ids=["softmax", "top_k"])
def test_layer_mixes_what_is_left_in_training(form: Form, gate: SoftmaxGateConfig | TopKGateConfig) -> None:
    dropping, whole = layer(0.5, gate, form), layer(0.0, gate, form)
    x_BD = torch.randn(200, 6)

    h, use = dropping([x_BD])

    _, whole_use = whole([x_BD])
    y_EBH = torch.stack(dropping.experts([x_BD]))
    torch.testing.assert_close(torch.stack(h), torch.einsum("bge,ebh->gbh", use.weights_BGE, y_EBH))
    torch.testing.assert_close(use.weights_BGE.sum(2), torch.ones(200, 2))
    assert (use.weights_BGE == 0).sum() > (whole_use.weights_BGE == 0).sum() + 100


def test_layer_drops_the_share_of_weights_that_the_config_says() -> None:
    _, use = layer(0.1)([torch.randn(5000, 6)])

    assert (use.weights_BGE[:, 0] == 0).float().mean().item() == pytest.approx(0.1, abs=0.01)


def test_nothing_is_dropped_once_it_serves() -> None:
    x_BD = torch.randn(50, 6)

    h, _ = layer(0.5).eval()([x_BD])

    expected, _ = layer(0.0).eval()([x_BD])
    torch.testing.assert_close(h, expected, rtol=0, atol=0)


def test_gate_that_has_come_to_rest_on_one_expert_still_trains_the_others() -> None:
    expert_layer = layer(0.2)
    gate = expert_layer.gates[0]
    with torch.no_grad():
        gate.weight_VD.zero_()
        gate.weight_VD[0] = 5.0

    h, use = expert_layer([torch.ones(500, 6)])

    assert (use.weights_BGE[:, 0, 0] == 0).float().mean().item() == pytest.approx(0.2, abs=0.05)
    assert (use.weights_BGE[:, 0, 1:] > 0.3).any()
    assert all(h_BH.isfinite().all() for h_BH in h)

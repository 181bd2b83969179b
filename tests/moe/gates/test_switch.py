"""SwitchGate: the most probable experts of a row; in training, what a rule gives it, counted."""

from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from recmoe.moe.experts import Form
from recmoe.moe.gates import GateConfig
from recmoe.moe.gates.in_training import InTrainingConfig
from recmoe.moe.gates.switch import SwitchGate, SwitchGateConfig
from recmoe.moe.mixture import MixtureConfig

RULES = [config_class() for config_class in get_args(get_args(InTrainingConfig)[0])]
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)


def gate_of(rule: InTrainingConfig, *, k: int = 1, num_experts: int = 4) -> SwitchGate:
    torch.manual_seed(0)
    return SwitchGateConfig(k=k, in_training=rule).build(in_features=6, num_experts=num_experts)


@pytest.mark.parametrize("k", [1, 2])
def test_served_row_is_weighted_by_the_probabilities_of_its_best_experts(k: int) -> None:
    gate = gate_of(RULES[0], k=k).eval().requires_grad_(False)
    x_BD = torch.randn(20, 6)

    p_BV = gate(x_BD)

    for x_D, p_V in zip(x_BD, p_BV, strict=True):
        # Eq. 1: p_i(x) = exp(h_i) / Σ_j exp(h_j); eq. 2: y = Σ_{i in T} p_i(x) · E_i(x), T of k experts.
        probabilities_V = torch.softmax(gate.weight_VD @ x_D, dim=0)
        best = sorted(range(4), key=lambda v: -float(probabilities_V[v]))[:k]
        expected_V = torch.tensor([float(probabilities_V[v]) if v in best else 0.0 for v in range(4)])
        torch.testing.assert_close(p_V, expected_V)


@every_rule
@pytest.mark.parametrize("k", [1, 2])
def test_training_row_is_weighted_by_the_probabilities_of_what_it_is_given(rule: InTrainingConfig, k: int) -> None:
    gate = gate_of(rule, k=k)
    x_BD = torch.randn(50, 6)

    p_BV = gate(x_BD)

    probabilities_BV = torch.softmax(x_BD @ gate.weight_VD.t(), dim=1)
    is_given_BV = rule.build()(probabilities_BV, k)
    torch.testing.assert_close(p_BV, probabilities_BV * is_given_BV)


@every_rule
def test_served_row_does_not_depend_on_the_batch_and_training_does(rule: InTrainingConfig) -> None:
    torch.manual_seed(0)
    layer = MixtureConfig(expert_hidden=(4,), gate=SwitchGateConfig(in_training=rule)).layer(
        experts={f"shared.{expert}": 0 for expert in range(4)}, gates={"a": 0}, mask_GE=[[True] * 4], in_features=6
    )
    x_BD, others_BD = torch.randn(1, 6), torch.randn(60, 6)
    # Rows that want what the first one wants, and want it more.
    crowd_BD = torch.cat([1.5 * x_BD.expand(60, 6), x_BD])

    def last_row(batch_BD: torch.Tensor, *, is_training: bool) -> torch.Tensor:
        h, _ = layer.train(is_training)([batch_BD])
        h_H: torch.Tensor = h[0][-1]
        return h_H

    alone_H = last_row(x_BD, is_training=False)
    for batch_BD in (torch.cat([others_BD, x_BD]), crowd_BD):
        torch.testing.assert_close(last_row(batch_BD, is_training=False), alone_H)
    assert not torch.allclose(last_row(crowd_BD, is_training=True), alone_H)


def test_rows_over_capacity_are_counted() -> None:
    gate = gate_of(SwitchGateConfig().in_training)
    # All ten rows want the same expert, which has room for ⌈1.25 · 10 / 4⌉ = 4.
    gate(torch.randn(1, 6).expand(10, 6))

    assert gate.take_counts() == (10, 6, 0)
    assert gate.take_counts() == (0, 0, 0)


def test_rows_that_no_expert_takes_are_counted() -> None:
    by_kind = {rule.kind: rule for rule in RULES}
    gate = gate_of(by_kind["batch_priority"])

    # Room for ⌈10 / 4⌉ = 3 rows of ten.
    gate(torch.randn(1, 6).expand(10, 6))

    assert gate.take_counts() == (10, 7, 7)


def test_served_rows_are_not_counted() -> None:
    gate = gate_of(RULES[0]).eval()

    gate(torch.randn(10, 6))

    assert gate.take_counts() == (0, 0, 0)


def test_shares_of_rerouted_rows_are_curves_of_the_layer() -> None:
    layer = MixtureConfig(expert_hidden=(4,), gate=SwitchGateConfig()).layer(
        experts={f"shared.{expert}": 0 for expert in range(4)},
        gates={"ctr": 0, "cvr": 0},
        mask_GE=[[True] * 4] * 2,
        in_features=6,
        level=1,
    )
    layer([torch.randn(1, 6).expand(10, 6)])

    curves = layer.curves()

    assert curves == {
        "train/ctr/level1/rerouted": 0.6,
        "train/ctr/level1/unrouted": 0.0,
        "train/cvr/level1/rerouted": 0.6,
        "train/cvr/level1/unrouted": 0.0,
    }
    assert layer.curves() == {}


def test_gate_learns_where_it_chooses_one_expert_alone() -> None:
    gate = gate_of(RULES[0]).eval()

    gate(torch.randn(20, 6)).sum().backward()

    assert gate.weight_VD.grad is not None
    assert gate.weight_VD.grad.abs().sum() > 0


@every_rule
def test_rule_is_refused_as_a_gate(rule: InTrainingConfig) -> None:
    with pytest.raises(ValidationError, match=f"{rule.kind} mixes the rows of a batch, so it cannot serve; say what"):
        TypeAdapter(GateConfig).validate_python({"kind": rule.kind})


@every_rule
@pytest.mark.parametrize("form", ["loop", "batched"])
def test_training_layer_mixes_the_experts_that_its_rows_were_given(rule: InTrainingConfig, form: Form) -> None:
    torch.manual_seed(0)
    layer = MixtureConfig(expert_hidden=(8, 4), gate=SwitchGateConfig(in_training=rule)).layer(
        experts={f"shared.{expert}": 0 for expert in range(3)},
        gates={"a": 0, "b": 0},
        mask_GE=[[True] * 3, [True, True, False]],
        in_features=6,
        form=form,
    )
    x_BD = torch.randn(20, 6)

    h, use = layer([x_BD])

    y_EBH = torch.stack(layer.experts([x_BD]))
    torch.testing.assert_close(torch.stack(h), torch.einsum("bge,ebh->gbh", use.weights_BGE, y_EBH))

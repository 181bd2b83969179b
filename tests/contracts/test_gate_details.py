"""What a gate says besides its weights is what its kind promises, and belongs to the same weights."""

from typing import get_args

import pytest
import torch

from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.experts import MlpExperts
from recmoe.moe.gate_use import GateUse
from recmoe.moe.gates import GateConfig
from recmoe.moe.gates.gate import TakesBias, details_of

CONFIGS = [config_class() for config_class in get_args(get_args(GateConfig)[0])]
SHARES = [config for config in CONFIGS if config.kind not in ("fallback", "stable")]
"""Whose weights are shares of the experts that a row chose; others make something else of them."""
every_gate = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)


def use_of(config: GateConfig, *, is_training: bool = True) -> GateUse:
    torch.manual_seed(0)
    gates = [config.build(in_features=6, num_experts=4) for _ in range(2)]
    for gate in gates:
        if isinstance(gate, TakesBias):
            gate.take_bias()
    layer = ExpertLayer(
        experts=MlpExperts(reads={f"shared.{expert}": 0 for expert in range(4)}, in_features=6, hidden=(3,)),
        gates=gates,
        gate_names=["ctr", "cvr"],
        input_of_gate=[0, 0],
        mask_GE=[[True] * 4] * 2,
    ).train(is_training)
    return layer.route([torch.randn(50, 6)])[1]


@every_gate
def test_gate_gives_the_details_that_its_kind_promises(config: GateConfig) -> None:
    use = use_of(config)

    for given in use.by_gate:
        found = {
            "logits": given.logits_BV,
            "load": given.load,
            "bias": given.bias_V,
            "nulls": given.nulls,
            "policy": given.policy,
            "second router": given.distilled,
        }
        assert {name for name, detail in found.items() if detail is not None} == details_of(config)


@pytest.mark.parametrize("config", SHARES, ids=lambda config: config.kind)
def test_details_belong_to_the_weights(config: GateConfig) -> None:
    use = use_of(config, is_training=False)

    for index, given in enumerate(use.by_gate):
        torch.testing.assert_close(given.weights_BV, use.weights_BGE[:, index])
        if given.logits_BV is not None:
            shares_BV = torch.softmax(given.logits_BV, dim=1)
            chosen_BV = given.weights_BV > 0
            among_chosen_BV = torch.where(chosen_BV, shares_BV, 0.0)
            if use.sums_to_one or given.nulls is not None:
                among_chosen_BV = among_chosen_BV / among_chosen_BV.sum(dim=1, keepdim=True).clamp(min=1e-30)
            torch.testing.assert_close(given.weights_BV, among_chosen_BV)


@pytest.mark.parametrize("config", [c for c in CONFIGS if "load" in details_of(c)], ids=lambda config: config.kind)
def test_load_is_a_chance_that_has_a_gradient(config: GateConfig) -> None:
    use = use_of(config)

    for given in use.by_gate:
        assert given.load is not None
        load_BV = given.load()
        assert load_BV.min() >= 0
        assert load_BV.max() <= 1
        # As many as are chosen, nearly: each is a chance given the others' noise.
        chosen_BV = given.weights_BV > 0
        assert load_BV.sum(dim=1).mean().item() == pytest.approx(chosen_BV.sum(dim=1).float().mean().item(), abs=0.2)
        assert load_BV.requires_grad

"""PolicyLosses: loops from the estimator, its mean over draws, and gates that find the right expert by it."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from recmoe.architectures import ArchitectureConfig
from recmoe.architectures.policy_losses import BASELINE, POLICY, PolicyLosses
from recmoe.architectures.seam import Inputs, Outputs, Targets
from recmoe.conformance.probes import parts
from recmoe.moe.gate_use import GateUse
from recmoe.moe.gates.gate import Policy, Weighed
from recmoe.moe.gates.policy import PolicyGate

TASKS = ("ctr", "cvr", "ctcvr")


def use_of(*gates: str, is_used_B: Tensor | None = None, num_rows: int = 4) -> GateUse:
    """Gates that drew with some chances and expectations."""
    given = []
    for _ in gates:
        log_chance_B, expected_B = -torch.rand(num_rows), torch.randn(num_rows)
        given.append(Weighed(torch.ones(num_rows, 1), policy=Policy(log_chance_B, expected_B, is_used_B)))
    return GateUse(0, gates, ("shared.0",), torch.ones(num_rows, len(gates), 1), by_gate=tuple(given))


def model_of(architecture: dict[str, Any], task_names: Sequence[str] = ("click", "buy")) -> Any:
    torch.manual_seed(0)
    fields = {"expert_hidden": [8], "gate": {"kind": "policy"}, **architecture}
    config: Any = TypeAdapter(ArchitectureConfig).validate_python(fields)
    return config.assemble(parts(config, task_names))


def test_losses_equal_loops_over_gates_and_rows_that_count() -> None:
    torch.manual_seed(0)
    uses = [use_of("ctr", "cvr", "shared"), use_of("ctr", "cvr")]
    weights = [[1, 1, 1], [1, 0, 1], [1, 0, 0], [0, 0, 0]]
    losses_BT = torch.rand(4, 3) * torch.tensor(weights)

    losses = PolicyLosses(TASKS)(uses, Targets(torch.zeros(4, 3), torch.tensor(weights).float(), losses_BT))

    policy = baseline = 0.0
    for use in uses:
        for name, given in zip(use.gates, use.by_gate, strict=True):
            assert given.policy is not None
            for row in range(4):
                own = [TASKS.index(name)] if name in TASKS else range(3)
                if not any(weights[row][task] for task in own):
                    continue
                lost = sum(losses_BT[row, task].item() for task in own)
                surprise = lost - given.policy.expected_B[row].item()
                policy += surprise * given.policy.log_chance_B[row].item() / 4
                baseline += surprise**2 / 4
    assert losses[POLICY].item() == pytest.approx(policy, rel=1e-5)
    assert losses[BASELINE].item() == pytest.approx(baseline, rel=1e-5)


def test_draws_that_took_no_part_do_not_count() -> None:
    torch.manual_seed(0)
    whole, half = use_of("ctr"), torch.tensor([True, True, False, False])
    policy = whole.by_gate[0].policy
    assert policy is not None
    masked = GateUse(0, ("ctr",), ("shared.0",), whole.weights_BGE, by_gate=(
        Weighed(torch.ones(4, 1), policy=policy._replace(is_used_B=half)),
    ))  # fmt: skip
    lost = partial(Targets, torch.zeros(4, 3))

    losses = PolicyLosses(TASKS)([masked], lost(torch.ones(4, 3), torch.ones(4, 3)))

    counted = PolicyLosses(TASKS)([whole], lost(half[:, None].float().expand(4, 3), torch.ones(4, 3)))
    assert losses == counted


def test_mean_gradient_over_draws_is_that_of_the_mean_loss() -> None:
    torch.manual_seed(0)
    gate = PolicyGate(in_features=2, num_experts=3)
    x_D, lost_V = torch.tensor([1.0, -0.5]), torch.tensor([0.2, 1.0, 3.0])
    num_rows = 200_000

    given = gate.weigh(x_D.expand(num_rows, 2))
    use = GateUse(0, ("ctr",), ("a.0", "a.1", "a.2"), given.weights_BV[:, None], by_gate=(given,))
    lost_B1 = (given.weights_BV @ lost_V)[:, None]
    PolicyLosses(("ctr",))([use], Targets(lost_B1, torch.ones_like(lost_B1), lost_B1))[POLICY].backward()

    expected_loss = torch.softmax(gate.weight_VD @ x_D, dim=0) @ lost_V
    (exact_VD,) = torch.autograd.grad(expected_loss, gate.weight_VD)
    torch.testing.assert_close(gate.weight_VD.grad, exact_VD, atol=0.01, rtol=0)
    assert exact_VD.abs().max() > 0.2


def test_gate_finds_the_expert_that_loses_least_and_its_baseline_what_that_loses() -> None:
    torch.manual_seed(0)
    gate = PolicyGate(in_features=2, num_experts=2)
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.05)
    x_BD = torch.randn(500, 2)
    # The expert for positive numbers loses nothing on them, and 1 on others; so the other way round.
    lost_BV = torch.stack([x_BD[:, 0] < 0, x_BD[:, 0] > 0], dim=1).float()

    for _ in range(200):
        given = gate.weigh(x_BD)
        use = GateUse(0, ("ctr",), ("a.0", "a.1"), given.weights_BV[:, None], by_gate=(given,))
        lost_B1 = (given.weights_BV * lost_BV).sum(dim=1, keepdim=True)
        losses = PolicyLosses(("ctr",))([use], Targets(lost_B1, torch.ones_like(lost_B1), lost_B1))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()

    assert (gate.eval()(x_BD) * lost_BV).sum(dim=1).mean() < 0.02
    assert gate.expect(x_BD).mean().item() == pytest.approx(0.05, abs=0.1)


@pytest.mark.parametrize(
    "architecture",
    [
        {"kind": "omoe"},
        {"kind": "mmoe"},
        {"kind": "cgc"},
        {"kind": "ple"},
        {"kind": "hierarchical", "num_groups": 2},
        {"kind": "home"},
        {"kind": "stem"},
        {"kind": "smes"},
        {"kind": "deepseek_moe"},
        {"kind": "adatt"},
    ],
    ids=lambda architecture: architecture["kind"],
)
def test_every_gate_of_every_mixture_learns_by_its_own_losses(architecture: dict[str, Any]) -> None:
    model = model_of(architecture)
    x_BD = torch.randn(200, 6)
    groups = {f"copy of {name}": x_BD for name in ("shared", "click", "buy")}
    outputs: Outputs = model(Inputs(x_BD, groups))

    losses = model.losses(outputs, Targets(torch.zeros(200, 2), torch.ones(200, 2), torch.rand(200, 2)))

    assert losses.keys() == model.loss_weights.keys() == {POLICY, BASELINE}
    sum(losses.values()).backward()
    gates = [module for module in model.modules() if isinstance(module, PolicyGate)]
    # A share of one expert is decided, and nothing is to be learned.
    several = [gate for gate in gates if len(gate.weight_VD) > 1]
    assert several
    assert all(gate.weight_VD.grad is not None and gate.weight_VD.grad.any() for gate in several)
    assert all(gate.expected.weight.grad is not None and gate.expected.weight.grad.any() for gate in gates)


def test_other_gates_bring_no_losses() -> None:
    model = model_of({"kind": "mmoe", "gate": {"kind": "softmax"}})

    outputs = model(Inputs(torch.randn(5, 6)))

    assert model.losses(outputs, Targets(torch.zeros(5, 2), torch.ones(5, 2))) == model.loss_weights == {}

"""What the watch names, on gates and experts with one thing wrong each."""

from typing import Any

import pytest
import torch
from torch import Tensor

from recmoe.moe.balance.alarms import (
    CURES,
    PATIENCE,
    PROBE_EVERY,
    Alarm,
    RoutingWatch,
    captured_gates,
    dead_experts,
    same_experts,
)
from recmoe.moe.balance.usage import ExpertUsage
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.mixture import MixtureConfig


def usage_of(usage_GE: list[list[float]], visible_GE: list[list[bool]] | None = None) -> ExpertUsage:
    usage = torch.tensor(usage_GE, dtype=torch.float64)
    visible = torch.ones(usage.shape, dtype=torch.bool) if visible_GE is None else torch.tensor(visible_GE)
    return ExpertUsage(
        level=1,
        gates=("ctr", "cvr")[: len(usage)],
        experts=tuple(f"shared.{expert}" for expert in range(usage.shape[1])),
        usage_GE=usage,
        visible_GE=visible,
        num_rows=10,
    )


def layer_of(mixture: dict[str, Any] | None = None) -> ExpertLayer:
    torch.manual_seed(0)
    return MixtureConfig.model_validate({"expert_hidden": [5], **(mixture or {})}).layer(
        experts={"ctr.0": 0, "ctr.1": 0, "cvr.0": 0, "shared.0": 0},
        gates={"ctr": 0, "cvr": 0},
        mask_GE=[[True, True, False, True], [False, False, True, True]],
        in_features=6,
    )


def alarms_of(layer: ExpertLayer, *, num_looks: int = PATIENCE) -> list[list[Alarm]]:
    """What each of some looks finds, after ten steps each."""
    watch = RoutingWatch()
    found = []
    for _ in range(num_looks):
        for _ in range(PROBE_EVERY):
            watch.see([layer.route([torch.randn(50, 6)])[1]])
        found.append(watch.alarms())
    return found


def favour(layer: ExpertLayer, gate: int, column: int, logit: Tensor) -> None:
    """Make all rows of ``alarms_of`` give an expert a logit, and the others 0."""
    with torch.no_grad():
        layer.gates[gate].weight_VD.zero_()
        layer.gates[gate].weight_VD[column] = logit


def test_expert_without_weight_in_any_gate_is_dead() -> None:
    (alarm,) = dead_experts(usage_of([[0.5, 0.49, 0.01], [0.0, 0.99, 0.01]]))

    assert alarm.kind == "dead"
    assert str(alarm) == "level 1, expert shared.2: gate ctr and cvr gives it 3.0% of an even share at most"


def test_expert_that_only_one_gate_uses_is_alive() -> None:
    assert not list(dead_experts(usage_of([[0.0, 1.0], [0.5, 0.5]])))


def test_expert_is_judged_by_the_gates_that_see_it() -> None:
    usage = usage_of([[1.0, 0.0], [0.0, 1.0]], [[True, False], [False, True]])

    assert not list(dead_experts(usage))
    # A gate that sees one expert has no choice.
    assert not list(captured_gates(usage))


def test_dead_expert_is_found_by_its_part_of_what_the_gate_gives() -> None:
    (alarm,) = dead_experts(usage_of([[0.004, 0.00001]]))

    assert alarm.where == "level 1, expert shared.1"


def test_gate_that_gives_all_to_one_expert_is_captured() -> None:
    (alarm,) = captured_gates(usage_of([[0.4, 0.3, 0.3], [0.01, 0.97, 0.02]]))

    assert alarm.kind == "captured"
    assert str(alarm) == "level 1, gate cvr: expert shared.1 gets 97.0% of all weight"


def test_experts_with_one_output_are_named_together() -> None:
    y_NH, other_NH = torch.randn(8, 3), torch.randn(8, 3)
    outputs = {"a.0": y_NH, "a.1": other_NH, "b.0": 1.001 * y_NH, "b.1": torch.zeros(8, 3), "c.0": torch.zeros(8, 3)}

    first, second = same_experts(0, outputs)

    assert first.where == "level 0, experts a.0 and b.0"
    # Two whose activations have all died give the same, too.
    assert second.where == "level 0, experts b.1 and c.0"


def test_healthy_layer_has_no_alarms() -> None:
    assert alarms_of(layer_of()) == [[], [], []]


@pytest.mark.parametrize("mixture", [{}, {"gate": {"kind": "top_k", "k": 1}}])
def test_captured_gate_and_its_dead_experts_are_named(mixture: dict[str, Any]) -> None:
    layer = layer_of(mixture)
    watch = RoutingWatch()
    x_BD = torch.ones(50, 6)
    favour(layer, 0, 2, torch.tensor(2.0))

    looks = []
    for _ in range(PATIENCE):
        watch.see([layer.route([x_BD])[1]])
        looks.append({(alarm.kind, alarm.where) for alarm in watch.alarms()})

    expected = {
        ("dead", "level 0, expert ctr.0"),
        ("dead", "level 0, expert ctr.1"),
        ("captured", "level 0, gate ctr"),
    }
    # One unlucky look is not an alarm.
    assert looks[:-1] == [set()] * (PATIENCE - 1)
    assert expected <= looks[-1]


def test_collapsed_experts_are_named() -> None:
    layer = layer_of({"expert": [{"kind": "gated"}]})
    stack = layer.experts
    first, last = stack.experts[0], stack.experts[3]
    last.load_state_dict(first.state_dict())

    (alarm,) = alarms_of(layer)[-1]

    assert (alarm.kind, alarm.where) == ("collapsed", "level 0, experts ctr.0 and shared.0")


def test_experts_that_hand_their_input_on_are_not_collapsed() -> None:
    layer = layer_of({"expert": [{"kind": "identity"}], "expert_hidden": [6]})

    assert alarms_of(layer) == [[], [], []]


def test_gate_that_was_first_not_finite_is_named_at_once() -> None:
    layer = layer_of()
    watch = RoutingWatch()
    x_BD = torch.randn(50, 6)

    favour(layer, 1, 0, torch.tensor(float("nan")))
    watch.see([layer.route([x_BD])[1]])
    # A step later everything is.
    favour(layer, 0, 0, torch.tensor(float("nan")))
    watch.see([layer.route([x_BD])[1]])

    (alarm,) = watch.alarms()
    assert str(alarm) == "level 0, gate cvr: the weights of experts are not finite"


def test_expert_whose_output_is_not_finite_is_named() -> None:
    layer = layer_of({"expert": [{"kind": "gated"}]})
    with torch.no_grad():
        for weight in layer.experts.experts[1].parameters():
            weight.fill_(float("inf"))

    alarms = alarms_of(layer, num_looks=1)[0]

    assert [str(alarm) for alarm in alarms] == ["level 0, expert ctr.1: the output is not finite"]


def test_watching_changes_nothing() -> None:
    layer = layer_of({"dropout": 0.5})
    use = layer.route([torch.randn(50, 6)])[1]
    before = torch.random.get_rng_state()
    watch = RoutingWatch()

    for _ in range(PROBE_EVERY):
        watch.see([use])
    watch.alarms()

    assert torch.equal(torch.random.get_rng_state(), before)
    assert layer.experts.training
    assert all(weight.grad is None for weight in layer.parameters())


def test_every_kind_of_alarm_has_a_cure() -> None:
    assert set(CURES) == {"dead", "captured", "collapsed", "not finite"}
    assert all("model." in cure or "training." in cure for cure in CURES.values())

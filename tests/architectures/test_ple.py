"""PLE: the streams between the levels, where other implementations went wrong."""

import torch

from recmoe.architectures import PLE, PLEConfig


def model(num_levels: int = 2) -> PLE:
    torch.manual_seed(0)
    config = PLEConfig(
        num_levels=num_levels, num_shared_experts=1, num_task_experts={"ctr": 2, "cvr": 1}, expert_hidden=(8,)
    )
    return config.build(in_features=3, task_names=["ctr", "cvr"])


def test_shared_gate_sees_every_expert_and_is_absent_from_the_last_level() -> None:
    ple = model(3)

    _, uses = ple(torch.randn(4, 3))

    assert [use.gates for use in uses] == [("ctr", "cvr", "shared"), ("ctr", "cvr", "shared"), ("ctr", "cvr")]
    assert (uses[0].weights_BGE[:, 2] > 0).all()
    assert uses[0].experts == ("ctr.0", "ctr.1", "cvr.0", "shared.0")


def test_gates_above_the_first_level_do_not_read_the_input() -> None:
    ple = model()
    layer = ple.levels[1]

    widths = {gate.weight_VD.shape[1] for gate in layer.gates}

    assert widths == {8}
    assert layer.experts.weights_EOD[0].shape[2] == 8


def test_other_task_reaches_a_task_through_the_shared_gate_only() -> None:
    ple = model()

    ple(torch.randn(50, 3))[0][1].sum().backward()

    # cvr does not see ctr's experts; they reach it by the shared stream of the first level alone.
    first_EOD, second_EOD = (layer.experts.weights_EOD[0].grad for layer in ple.levels)
    assert [bool(gradient.any()) for gradient in first_EOD] == [True, True, True, True]
    assert [bool(gradient.any()) for gradient in second_EOD] == [False, False, True, True]
    first_gates, second_gates = ([gate.weight_VD.grad for gate in layer.gates] for layer in ple.levels)
    assert [gradient is not None and bool(gradient.any()) for gradient in first_gates] == [False, True, True]
    assert [gradient is not None and bool(gradient.any()) for gradient in second_gates] == [False, True]

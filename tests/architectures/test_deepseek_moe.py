"""DeepSeekMoE: the paper's equations row by row, shared experts that are always on, and the work that is skipped."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from recmoe.architectures.deepseek_moe import DeepSeekMoE, DeepSeekMoEConfig
from recmoe.moe.balance import expert_usage
from recmoe.moe.balance.alarms import dead_experts
from recmoe.moe.gates import SoftmaxGateConfig, TopKGateConfig
from recmoe.moe.mixture import MixtureConfig
from tests.parity.naive import HIDDEN, WIDTH, assert_equal_to_paper, run_expert


def model_of(num_tasks: int, *, num_shared: int = 2, num_routed: int = 5, k: int = 2) -> DeepSeekMoE:
    torch.manual_seed(0)
    return DeepSeekMoE(
        in_features=WIDTH,
        task_names=[f"task{task}" for task in range(num_tasks)],
        num_shared_experts=num_shared,
        num_routed_experts=num_routed,
        make_layer=partial(MixtureConfig(expert_hidden=HIDDEN, gate=TopKGateConfig(k=k)).layer, form="loop"),
    )


@pytest.mark.parametrize("num_rows", [1, 4])
@pytest.mark.parametrize("num_tasks", [1, 3])
@pytest.mark.parametrize(("num_shared", "num_routed", "k"), [(1, 4, 1), (2, 5, 3), (2, 3, 3)])
def test_representations_equal_the_equations_row_by_row(
    num_shared: int, num_routed: int, k: int, num_tasks: int, num_rows: int
) -> None:
    model = model_of(num_tasks, num_shared=num_shared, num_routed=num_routed, k=k).double()

    def paper(x_D: Tensor) -> list[Tensor]:
        h = []
        for task in range(num_tasks):
            # Eq. 11: s_i = softmax_i(u · e_i), over the routed experts.
            scores = torch.exp(model.layer.gates[task].weight_VD @ x_D)
            scores = scores / scores.sum()
            # Eq. 10: only the mK - K_s largest are kept; V3, eq. 13: they are divided by their sum.
            chosen = sorted(range(num_routed), key=lambda expert: -scores[expert].item())[:k]
            total = sum(scores[expert] for expert in chosen)
            # Eq. 9, without the residual: Σ FFN_shared(u) + Σ g_i · FFN_i(u).
            y_H = sum(run_expert(model.layer.experts, shared, x_D) for shared in range(num_shared))
            for expert in chosen:
                y_H = y_H + scores[expert] / total * run_expert(model.layer.experts, num_shared + expert, x_D)
            h.append(y_H)
        return h

    assert_equal_to_paper(model, paper, num_rows=num_rows, num_tasks=num_tasks)


def test_row_pays_for_the_shared_experts_and_those_that_it_chose() -> None:
    model = model_of(1, num_shared=2, num_routed=30, k=3)

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.randn(100, WIDTH))

    expert = WIDTH * HIDDEN[0] + HIDDEN[0] * HIDDEN[1]
    assert model.layer.num_used == (5,)
    assert counter.get_total_flops() == 2 * 100 * (5 * expert + 30 * WIDTH)


def test_gates_neither_see_the_shared_experts_nor_count_them_as_dead() -> None:
    model = DeepSeekMoEConfig(num_routed_experts=3, gate=SoftmaxGateConfig()).build(
        in_features=WIDTH, task_names=("click", "buy")
    )

    _, (use,) = model(torch.randn(50, WIDTH))

    assert use.experts == ("shared.0", "shared.1", "routed.0", "routed.1", "routed.2")
    assert not use.weights_BGE[:, :, :2].any()
    torch.testing.assert_close(use.weights_BGE.sum(dim=2), torch.ones(50, 2))
    assert not list(dead_experts(expert_usage(use)))


def test_every_task_learns_in_the_shared_experts_from_every_row() -> None:
    model = model_of(2)
    x_BD = torch.randn(1, WIDTH)

    model(x_BD)[0][1].sum().backward()

    gradient_EOD = model.layer.experts.weights_EOD[0].grad
    touched = [bool(gradient.any()) for gradient in gradient_EOD]
    assert touched[:2] == [True, True]
    assert sum(touched[2:]) == 2

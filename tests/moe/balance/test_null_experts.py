"""The balance of null experts against a loop written from AdaMoE, and what it does to a gate."""

import math
from typing import cast

import pytest
import torch
from torch import Tensor

from recmoe.moe.balance.null_experts import null_experts_loss
from recmoe.moe.balance.z_loss import z_loss
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.gates.null_experts import NullExpertsGate, NullExpertsGateConfig
from recmoe.moe.mixture import MixtureConfig


def layer_of(*, k: int = 3, num_null: int = 2) -> ExpertLayer:
    torch.manual_seed(0)
    return MixtureConfig(gate=NullExpertsGateConfig(k=k, num_null=num_null), expert_hidden=(5,)).layer(
        experts={f"shared.{expert}": 0 for expert in range(4)},
        gates={"ctr": 0, "cvr": 0},
        mask_GE=[[True] * 4, [True, True, True, False]],
        in_features=6,
    )


def logits_of(gate: NullExpertsGate, x_BD: Tensor) -> list[list[float]]:
    """Of experts and null experts, row by row."""
    return [[float(w_D @ x_D) for w_D in [*gate.weight_VD.detach(), *gate.nulls_MD.detach()]] for x_D in x_BD]


def test_term_equals_the_loop() -> None:
    layer = layer_of()
    x_BD = torch.randn(9, 6)

    loss = null_experts_loss([layer.route([x_BD])[1]])

    losses = []
    for gate in layer.gates:
        rows = logits_of(cast(NullExpertsGate, gate), x_BD)
        num = len(rows[0])
        chosen = [sorted(range(num), key=lambda place, row=row: -row[place])[:3] for row in rows]  # type: ignore[misc]
        f = [sum(place in of_row for of_row in chosen) / 9 for place in range(num)]
        f[-2:] = [(f[-2] + f[-1]) / 2] * 2
        shares = [[math.exp(z) / sum(map(math.exp, row)) for z in row] for row in rows]
        losses.append(num * sum(f[place] * sum(of_row[place] for of_row in shares) / 9 for place in range(num)))
    assert loss.item() == pytest.approx(sum(losses) / 2, rel=1e-5)


def test_z_loss_counts_null_experts() -> None:
    layer = layer_of()
    x_BD = torch.randn(9, 6)

    loss = z_loss([layer.route([x_BD])[1]])

    squares = [
        math.log(sum(map(math.exp, row))) ** 2
        for gate in layer.gates
        for row in logits_of(cast(NullExpertsGate, gate), x_BD)
    ]
    assert loss.item() == pytest.approx(sum(squares) / len(squares), rel=1e-5)


def test_term_brings_experts_per_row_to_their_part_of_the_choice() -> None:
    layer = layer_of(k=4, num_null=4)
    x_BD = torch.randn(256, 6)
    # At first no row chooses a null expert.
    x_BD[:, 0] = 1.0
    gate = cast(NullExpertsGate, layer.gates[0])
    gate.nulls_MD.data[:, 0] -= 9.0
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.05)

    before = (gate(x_BD) > 0).sum(dim=1).float().mean().item()
    for _ in range(300):
        optimizer.zero_grad()
        null_experts_loss([layer.route([x_BD])[1]]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    num_used_B = (gate(x_BD) > 0).sum(dim=1)

    # 4 places · 4 of 8 experts.
    assert before == 4.0
    assert num_used_B.float().mean().item() == pytest.approx(2.0, abs=0.5)
    assert num_used_B.unique().numel() > 1

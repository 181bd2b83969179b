"""TopKGate on numbers checked by hand."""

import pytest
import torch

from recmoe.moe.gates import TopKGate


def gate_of(weights_V: list[float], *, k: int) -> TopKGate:
    gate = TopKGate(in_features=1, num_experts=len(weights_V), k=k)
    gate.weight_VD.data.copy_(torch.tensor(weights_V).unsqueeze(1))
    return gate


def test_best_k_experts_share_the_weight() -> None:
    # Logits log 3, 0, 0 and 2 · log 3: the last outweighs the first three to one.
    gate = gate_of([1.0986123, 0.0, 0.0, 1.0986123 * 2], k=2)

    p_BV = gate(torch.ones(1, 1))

    assert p_BV[0].tolist() == pytest.approx([0.25, 0.0, 0.0, 0.75])


def test_gate_that_sees_fewer_than_k_experts_uses_all() -> None:
    gate = gate_of([0.0, 0.0], k=3)

    assert gate(torch.ones(1, 1))[0].tolist() == pytest.approx([0.5, 0.5])


def test_every_row_chooses_for_itself() -> None:
    gate = gate_of([1.0, 0.0, -1.0], k=1)

    p_BV = gate(torch.tensor([[1.0], [-1.0]]))

    assert p_BV.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]

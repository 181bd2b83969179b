"""SoftmaxGate on numbers checked by hand."""

import pytest
import torch

from recmoe.moe.gates import SoftmaxGate


def gate_of(weight_VD: list[list[float]], *, temperature: float = 1.0) -> SoftmaxGate:
    weights = torch.tensor(weight_VD)
    gate = SoftmaxGate(in_features=weights.shape[1], num_experts=weights.shape[0], temperature=temperature)
    gate.weight_VD.data.copy_(weights)
    return gate


@pytest.mark.parametrize(("temperature", "share"), [(1.0, 0.75), (0.5, 0.9), (2.0, 3**0.5 / (1 + 3**0.5))])
def test_temperature_divides_the_logits(temperature: float, share: float) -> None:
    # Logits log 3 and 0: three to one at temperature 1.
    gate = gate_of([[1.0986123], [0.0]], temperature=temperature)

    p_BV = gate(torch.ones(1, 1))

    assert p_BV[0, 0].item() == pytest.approx(share, abs=1e-6)


def test_near_equal_experts_are_told_apart_under_autocast() -> None:
    gate = gate_of([[1.0, 0.001], [1.0, 0.0]])

    with torch.autocast("cpu", dtype=torch.bfloat16):
        p_BV = gate(torch.ones(1, 2))

    assert p_BV[0, 0] > p_BV[0, 1]


def test_bfloat16_input_is_lifted_to_float32() -> None:
    gate = gate_of([[1.0, 0.001], [1.0, 0.0]])

    p_BV = gate(torch.ones(1, 2, dtype=torch.bfloat16))

    assert p_BV.dtype == torch.float32
    assert p_BV[0, 0] > p_BV[0, 1]

"""Experts mixed by several gates: weighted sums, and their gradients."""

import pytest
import torch
from torch import Tensor

from recmoe.moe.executors.loop import mix

SEEN = [[0, 1, 2], [2, 0], [3]]
"""Gates that see experts in any order, share some, or see one; nobody sees expert 4."""


def experts_and_weights(num_rows: int, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], list[Tensor]]:
    torch.manual_seed(0)
    outputs = [torch.randn(num_rows, 3, dtype=dtype).requires_grad_() for _ in range(5)]
    logits = [torch.randn(num_rows, len(experts), dtype=torch.float64) for experts in SEEN]
    return outputs, [torch.softmax(logits_BV, dim=1).requires_grad_() for logits_BV in logits]


@pytest.mark.parametrize("num_rows", [0, 1, 20])
def test_mixtures_are_weighted_sums(num_rows: int) -> None:
    outputs, weights = experts_and_weights(num_rows)
    before = [tensor.clone() for tensor in (*outputs, *weights)]

    mixed = mix(outputs, weights=weights, seen=SEEN)

    for experts, p_BV, h_BH in zip(SEEN, weights, mixed, strict=True):
        y_BVH = torch.stack([outputs[expert] for expert in experts], dim=1)
        torch.testing.assert_close(h_BH, torch.einsum("bv,bvh->bh", p_BV, y_BVH))
    torch.testing.assert_close([*outputs, *weights], before, rtol=0, atol=0)


def test_gradients_are_those_of_the_sums() -> None:
    outputs, weights = experts_and_weights(4)

    def mixed(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(mix([*tensors[:4], outputs[4]], weights=tensors[4:], seen=SEEN))

    assert torch.autograd.gradcheck(mixed, (*outputs[:4], *weights))


def test_expert_that_no_gate_sees_has_no_gradient() -> None:
    outputs, weights = experts_and_weights(4)

    gradients = torch.autograd.grad(
        [h_BH.sum() for h_BH in mix(outputs, weights=weights, seen=SEEN)], outputs, allow_unused=True
    )

    assert [gradient is None for gradient in gradients] == [False, False, False, False, True]


def test_gate_whose_mixture_nobody_uses_gets_a_zero_gradient() -> None:
    outputs, weights = experts_and_weights(4)
    mixed = mix(outputs, weights=weights, seen=SEEN)

    gradients = torch.autograd.grad(mixed[0].sum(), weights)

    assert [bool(gradient.any()) for gradient in gradients] == [True, False, False]


def test_mixture_is_of_the_experts_type_and_its_gradient_of_the_gates_own() -> None:
    outputs, weights = experts_and_weights(50, dtype=torch.bfloat16)
    exact = [y_BH.detach().double() for y_BH in outputs]

    mixed = mix(outputs, weights=weights, seen=SEEN)
    gradients = torch.autograd.grad([h_BH.sum() for h_BH in mixed], weights)

    expected = mix(exact, weights=weights, seen=SEEN)
    expected_gradients = torch.autograd.grad([h_BH.sum() for h_BH in expected], weights)
    assert {h_BH.dtype for h_BH in mixed} == {torch.bfloat16}
    assert {gradient.dtype for gradient in gradients} == {torch.float64}
    for ours, theirs in zip([*mixed, *gradients], [*expected, *expected_gradients], strict=True):
        assert (ours - theirs).norm() < 0.02 * theirs.norm()

"""Usage and importance, on numbers checked by hand."""

import pytest
import torch

from recmoe.moe.balance import expert_usage
from recmoe.moe.balance.importance import importance_loss
from recmoe.moe.gate_use import GateUse


def gate_use(
    weights_BGE: list[list[list[float]]], visible_GE: list[list[bool]] | None = None, *, sums_to_one: bool = True
) -> GateUse:
    weights = torch.tensor(weights_BGE, requires_grad=True)
    return GateUse(
        level=0,
        gates=tuple(f"task{gate}" for gate in range(weights.shape[1])),
        experts=tuple(f"shared.{expert}" for expert in range(weights.shape[2])),
        weights_BGE=weights,
        visible_GE=None if visible_GE is None else torch.tensor(visible_GE),
        sums_to_one=sums_to_one,
    )


def test_usage_is_the_mean_weight_per_gate() -> None:
    use = gate_use([[[1.0, 0.0], [0.5, 0.5]], [[0.5, 0.5], [0.0, 1.0]]])

    usage = expert_usage(use)

    assert usage.usage_GE.tolist() == [[0.75, 0.25], [0.25, 0.75]]
    assert usage.num_rows == 2
    assert usage.visible_GE.all()


def test_merged_usage_counts_rows_not_batches() -> None:
    first = expert_usage(gate_use([[[1.0, 0.0]]] * 3))
    second = expert_usage(gate_use([[[0.0, 1.0]]]))

    merged = first.merge(second)

    assert merged.usage_GE.tolist() == [[0.75, 0.25]]
    assert merged.num_rows == 4


def test_even_use_costs_nothing() -> None:
    loss = importance_loss([gate_use([[[1.0, 0.0]], [[0.0, 1.0]]])])

    assert loss.item() == pytest.approx(0.0)


@pytest.mark.parametrize("num_experts", [2, 5])
def test_one_expert_for_all_rows_costs_the_number_of_the_others(num_experts: int) -> None:
    loss = importance_loss([gate_use([[[1.0] + [0.0] * (num_experts - 1)]] * 3)])

    assert loss.item() == pytest.approx(num_experts - 1)


def test_loss_is_the_squared_coefficient_of_variation() -> None:
    # Importance 1.2 and 0.8: mean 1, deviations ± 0.2.
    loss = importance_loss([gate_use([[[0.7, 0.3]], [[0.5, 0.5]]])])

    assert loss.item() == pytest.approx(0.04)


def test_loss_is_the_same_for_weights_that_sum_to_something_else() -> None:
    # Three times the weights of the test above.
    loss = importance_loss([gate_use([[[2.1, 0.9]], [[1.5, 1.5]]], sums_to_one=False)])

    assert loss.item() == pytest.approx(0.04)


def test_masked_experts_do_not_count_as_unbalanced() -> None:
    loss = importance_loss(
        [gate_use([[[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]], [[True, True, False], [False, False, True]])]
    )

    assert loss.item() == pytest.approx(0.0)


def test_gate_that_uses_no_expert_has_a_finite_loss_and_gradient() -> None:
    use = gate_use([[[0.0, 0.0]]], sums_to_one=False)

    loss = importance_loss([use])
    loss.backward()

    assert loss.item() == pytest.approx(1.0)
    assert use.weights_BGE.grad is not None
    assert use.weights_BGE.grad.isfinite().all()


def test_loss_pushes_weight_away_from_the_favoured_expert() -> None:
    use = gate_use([[[0.9, 0.1]]])

    importance_loss([use]).backward()

    gradient = use.weights_BGE.grad
    assert gradient is not None
    assert gradient[0, 0, 0] > gradient[0, 0, 1]

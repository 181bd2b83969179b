"""Every rule for gradients, against one contract."""

from typing import get_args

import pytest
import torch

from recmoe.balancing.fork import Rule, weigh
from recmoe.balancing.rules import BalancingConfig

CONFIGS = [cls for cls in get_args(get_args(BalancingConfig)[0]) if cls().build(num_tasks=3) is not None]
RULES = [config for config in CONFIGS if config().build(num_tasks=3).rule is not None]

rules = pytest.mark.parametrize("config", RULES, ids=[config().kind for config in RULES])


def rule_of(config: type) -> Rule:
    rule: Rule = config().build(num_tasks=3).rule
    return rule


def gram(seed: int = 0) -> torch.Tensor:
    grad_TS = torch.randn(3, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    grad_TS[1] -= 1.5 * grad_TS[0]
    return grad_TS @ grad_TS.t()


@rules
def test_orthogonal_gradients_of_one_length_are_added_up(config: type) -> None:
    weights_T = weigh(rule_of(config), 1e-6 * torch.eye(3))

    # float32, as the gradients; UPGrad's solver adds a ten-thousandth to the diagonal.
    torch.testing.assert_close(weights_T, torch.ones(3), atol=1e-3, rtol=0)


@rules
def test_length_of_all_gradients_together_does_not_matter(config: type) -> None:
    gram_TT = gram()

    # Gradients of a mean over many rows are as small as that.
    torch.testing.assert_close(weigh(rule_of(config), 2.0**-30 * gram_TT), weigh(rule_of(config), gram_TT))


@pytest.mark.parametrize("config", [config for config in RULES if config().kind != "pcgrad"], ids=lambda c: c().kind)
def test_tasks_are_known_by_their_gradients_not_by_their_order(config: type) -> None:
    gram_TT, order_T = gram(), torch.tensor([2, 0, 1])

    weights_T = weigh(rule_of(config), gram_TT)

    torch.testing.assert_close(
        weigh(rule_of(config), gram_TT[order_T][:, order_T]), weights_T[order_T], atol=1e-3, rtol=0
    )


@rules
def test_merged_gradient_helps_two_tasks_in_conflict(config: type) -> None:
    # At 120 degrees, one twice as long: their sum harms no one's task but would not help the first.
    grad_TS = torch.tensor([[1.0, 0.0], [-1.0, 3.0**0.5]], dtype=torch.float64)
    gram_TT = grad_TS @ grad_TS.t()
    config = config.model_validate({"c": 0.9}) if "c" in config.model_fields else config()

    gains_T = gram_TT @ weigh(config.build(num_tasks=2).rule, gram_TT)

    assert (gains_T > 1e-4).all()


@rules
def test_task_without_a_gradient_takes_no_part(config: type) -> None:
    gram_TT = gram()
    gram_TT[1] = gram_TT[:, 1] = 0.0

    weights_T = weigh(rule_of(config), gram_TT)

    part_T = torch.tensor([0, 2])
    torch.testing.assert_close(weights_T[part_T], weigh(rule_of(config), gram_TT[part_T][:, part_T]))
    assert weights_T[1] == 1.0


@rules
@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_gradients_that_say_nothing_are_added_up(config: type, value: float) -> None:
    assert weigh(rule_of(config), torch.full((3, 3), value)).tolist() == [1.0, 1.0, 1.0]


@rules
def test_parallel_gradients_get_finite_weights(config: type) -> None:
    weights_T = weigh(rule_of(config), torch.tensor([[1.0, 2.0, 2.0], [2.0, 4.0, 4.0], [2.0, 4.0, 4.0]]))

    assert torch.isfinite(weights_T).all()

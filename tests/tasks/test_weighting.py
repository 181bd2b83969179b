import math

import torch

from recmoe.tasks.weighting import FixedWeightingConfig, UncertaintyWeightingConfig


def test_fixed_weighting_is_the_weighted_sum() -> None:
    weighting = FixedWeightingConfig().build(weights=[1.0, 0.5], outputs=["binary", "regression"])

    assert weighting(torch.tensor([2.0, 4.0])).item() == 4.0


def test_uncertainty_weighting_starts_with_noise_one() -> None:
    weighting = UncertaintyWeightingConfig().build(weights=[1.0, 1.0], outputs=["binary", "regression"])

    assert weighting(torch.tensor([2.0, 4.0])).item() == 4.0


def test_uncertainty_weighting_is_least_where_the_variance_fits_the_loss() -> None:
    weighting = UncertaintyWeightingConfig().build(weights=[1.0, 1.0], outputs=["binary", "regression"])
    weighting.log_variance_T.data = torch.tensor([math.log(2 * 0.3), math.log(4.0)])

    weighting(torch.tensor([0.3, 4.0])).backward()

    torch.testing.assert_close(weighting.log_variance_T.grad, torch.zeros(2))


def test_a_task_of_weight_zero_takes_no_part() -> None:
    weighting = UncertaintyWeightingConfig().build(weights=[1.0, 0.0], outputs=["binary", "binary"])
    losses_T = torch.tensor([2.0, 4.0], requires_grad=True)

    weighting(losses_T).backward()

    assert losses_T.grad is not None
    assert losses_T.grad.tolist() == [1.0, 0.0]
    assert weighting.log_variance_T.grad is not None
    assert weighting.log_variance_T.grad[1] == 0

import math

import pytest
import torch
from torch.nn import functional

from recmoe.tasks.binary import BinaryTask
from recmoe.tasks.product import ProductTask, ProductTaskConfig
from recmoe.tasks.regression import RegressionTask, RegressionTaskConfig
from recmoe.tasks.task import TaskRows


def rows(logits_BK: torch.Tensor, labels_B: torch.Tensor) -> TaskRows:
    """Rows that all count."""
    return TaskRows(logits_BK, labels_B, torch.ones_like(labels_B), None)


def test_binary_loss_is_cross_entropy() -> None:
    logits_BK = torch.tensor([[0.0], [math.log(3.0)]])

    losses_B = BinaryTask().losses(rows(logits_BK, torch.tensor([1.0, 0.0])))

    torch.testing.assert_close(losses_B, torch.tensor([math.log(2.0), math.log(4.0)]))


def test_product_predicts_the_product_of_probabilities() -> None:
    logits_BK = torch.tensor([[0.0, math.log(3.0)]])

    predictions_B = ProductTask().predict(logits_BK)

    torch.testing.assert_close(predictions_B, torch.tensor([0.375]))


def test_product_loss_is_cross_entropy_of_the_product() -> None:
    logits_BK = torch.tensor([[0.0, math.log(3.0)], [0.0, math.log(3.0)]])

    losses_B = ProductTask().losses(rows(logits_BK, torch.tensor([1.0, 0.0])))

    torch.testing.assert_close(losses_B, torch.tensor([-math.log(0.375), -math.log(0.625)]))


def test_product_of_one_step_is_the_binary_loss() -> None:
    logits_BK = torch.linspace(-30, 30, 13)[:, None]
    labels_B = torch.arange(13.0) % 2

    losses_B = ProductTask().losses(rows(logits_BK, labels_B))

    torch.testing.assert_close(losses_B, BinaryTask().losses(rows(logits_BK, labels_B)))


def test_product_loss_equals_log1mexp() -> None:
    logits_BK = torch.randn(100, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4
    log_p_B = functional.logsigmoid(logits_BK).sum(dim=1)

    losses_B = ProductTask().losses(rows(logits_BK, torch.zeros(100, dtype=torch.float64)))

    log1mexp_B = torch.where(log_p_B > -math.log(2), (-log_p_B.expm1()).log(), (-log_p_B.exp()).log1p())
    torch.testing.assert_close(losses_B, -log1mexp_B)


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("scale", [-100.0, -20.0, 20.0, 100.0])
def test_product_loss_and_gradient_are_finite_far_out(scale: float, label: float) -> None:
    logits_BK = torch.full((1, 2), scale, requires_grad=True)

    loss = ProductTask().losses(rows(logits_BK, torch.tensor([label]))).sum()
    loss.backward()

    assert torch.isfinite(loss)
    assert logits_BK.grad is not None
    assert torch.isfinite(logits_BK.grad).all()


def test_sure_but_wrong_product_keeps_its_gradient() -> None:
    logits_BK = torch.full((1, 2), 50.0, requires_grad=True)

    ProductTask().losses(rows(logits_BK, torch.zeros(1))).sum().backward()

    torch.testing.assert_close(logits_BK.grad, torch.full((1, 2), 0.5))


def test_product_needs_two_factors() -> None:
    with pytest.raises(ValueError, match="at least 2 items"):
        ProductTaskConfig(of=("ctr",))


def test_regression_loss_is_squared_error() -> None:
    task = RegressionTaskConfig(label="y").build()

    losses_B = task.losses(rows(torch.tensor([[1.0], [2.0]]), torch.tensor([3.0, 2.0])))

    torch.testing.assert_close(losses_B, torch.tensor([4.0, 0.0]))


def test_huber_loss_is_linear_beyond_its_delta() -> None:
    task = RegressionTask(transform="none", loss="huber", huber_delta=1.0, has_mean=False)

    losses_B = task.losses(rows(torch.tensor([[0.5], [10.0]]), torch.zeros(2)))

    torch.testing.assert_close(losses_B, torch.tensor([0.125, 9.5]))


def test_log1p_regression_predicts_in_the_unit_of_the_label() -> None:
    task = RegressionTaskConfig(label="y", transform="log1p", predicts="median").build()
    labels_B = torch.tensor([-3.0, 0.0, 1.0, 1000.0])
    logits_BK = (labels_B.sign() * labels_B.abs().log1p())[:, None]

    predictions_B = task.predict(logits_BK)

    torch.testing.assert_close(predictions_B, labels_B)
    torch.testing.assert_close(task.losses(rows(logits_BK, labels_B)), torch.zeros(4))

"""Losses and predictions of tasks with several logits against loops written from the papers, a row at a time."""

import math
from collections.abc import Sequence

import pytest
import torch

from recmoe.features.labels import Levels
from recmoe.tasks.classes import ClassesTaskConfig
from recmoe.tasks.ordinal import OrdinalTaskConfig
from recmoe.tasks.quantile import QuantileTaskConfig
from recmoe.tasks.regression import LARGEST_EXPONENT, MEAN_SHARE, RegressionTaskConfig
from recmoe.tasks.task import Task, TaskRows
from recmoe.tasks.zero_inflated_lognormal import ZeroInflatedLognormalTaskConfig


def drawn(num_logits: int) -> torch.Tensor:
    """Logits of six rows."""
    return torch.randn(6, num_logits, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def losses_of(task: Task, logits_BK: torch.Tensor, labels: Sequence[float]) -> list[float]:
    labels_B = torch.tensor(labels, dtype=torch.float64)
    losses: list[float] = task.losses(TaskRows(logits_BK, labels_B, torch.ones_like(labels_B), None)).tolist()
    return losses


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def softplus(z: float) -> float:
    return math.log(1 + math.exp(z))


def test_classes_are_a_softmax_and_predict_the_expected_value() -> None:
    values = [0.0, 2.0, 10.0]
    task = ClassesTaskConfig(label="y", classes=Levels.model_validate({"view": 0, "cart": 2, "buy": 10})).build()
    logits_BK, labels = drawn(3), [0.0, 2.0, 10.0, 10.0, 0.0, 2.0]

    losses, expected = [], []
    for z, label in zip(logits_BK.tolist(), labels, strict=True):
        total = sum(math.exp(z_k) for z_k in z)
        losses.append(-math.log(math.exp(z[values.index(label)]) / total))
        expected.append(sum(math.exp(z_k) / total * value for z_k, value in zip(z, values, strict=True)))

    assert task.logits == ("view", "cart", "buy")
    assert losses_of(task, logits_BK, labels) == pytest.approx(losses)
    assert task.predict(logits_BK).tolist() == pytest.approx(expected)


def test_ordinal_loss_is_that_of_coral_with_falling_log_odds() -> None:
    levels = [1.0, 2.0, 4.0, 5.0]
    task = OrdinalTaskConfig(label="y", levels=Levels.model_validate([1, 2, 4, 5])).build()
    logits_BK, labels = drawn(3), [1.0, 2.0, 4.0, 5.0, 5.0, 1.0]

    losses, expected = [], []
    for z, label in zip(logits_BK.tolist(), labels, strict=True):
        log_odds = [z[0], z[0] - softplus(z[1]), z[0] - softplus(z[1]) - softplus(z[2])]
        loss, level = 0.0, levels[0]
        for k, s in enumerate(log_odds, start=1):
            loss -= math.log(sigmoid(s)) if label >= levels[k] else math.log(1 - sigmoid(s))
            level += (levels[k] - levels[k - 1]) * sigmoid(s)
        losses.append(loss)
        expected.append(level)

    assert task.logits == ("1-2", "2-4", "4-5")
    assert losses_of(task, logits_BK, labels) == pytest.approx(losses)
    assert task.predict(logits_BK).tolist() == pytest.approx(expected)


def test_levels_have_probabilities_that_sum_to_one() -> None:
    task = OrdinalTaskConfig(label="y", levels=Levels.model_validate([1, 2, 3])).build()
    logits_BK = drawn(2)

    probability = [
        torch.exp(-task.measures(logits_BK, torch.full((6,), level, dtype=torch.float64))["logloss"])
        for level in (1.0, 2.0, 3.0)
    ]

    assert all((p_B > 0).all() for p_B in probability)
    torch.testing.assert_close(sum(probability), torch.ones(6, dtype=torch.float64))


@pytest.mark.parametrize("predicts", [0.1, 0.5, 0.9, None])
def test_quantile_loss_is_the_mean_pinball_loss_and_quantiles_do_not_cross(predicts: float | None) -> None:
    task = QuantileTaskConfig(label="y", quantiles=(0.1, 0.5, 0.9), predicts=predicts).build()
    logits_BK, labels = 3 * drawn(3), [-4.0, 0.0, 0.5, 1.0, 3.0, 90.0]
    served = [0.1, 0.5, 0.9].index(predicts or 0.5)

    losses, expected = [], []
    for z, label in zip(logits_BK.tolist(), labels, strict=True):
        steps = [math.exp(z[1]), math.exp(z[2])]
        q = {
            0: [z[0], z[0] + steps[0], z[0] + steps[0] + steps[1]],
            1: [z[0] - steps[0], z[0], z[0] + steps[1]],
            2: [z[0] - steps[1] - steps[0], z[0] - steps[1], z[0]],
        }[served]
        assert q == sorted(q)
        pinball = [
            t * (label - q_k) if label >= q_k else (1 - t) * (q_k - label)
            for t, q_k in zip((0.1, 0.5, 0.9), q, strict=True)
        ]
        losses.append(sum(pinball) / 3)
        expected.append(z[0])

    assert task.logits == (f"{predicts or 0.5:g}", "0.1-0.5", "0.5-0.9")
    assert losses_of(task, logits_BK, labels) == pytest.approx(losses)
    assert task.predict(logits_BK).tolist() == pytest.approx(expected)


def test_quantile_of_a_transformed_label_is_the_transformed_quantile() -> None:
    task = QuantileTaskConfig(label="y", transform="log1p").build()
    labels_N = torch.tensor([0.0, 1.0, 2.0, 50.0, 1000.0])

    # Where the prediction is the median of the labels, as many pull up as down.
    z = torch.log1p(torch.tensor(2.0)).repeat(5, 1).requires_grad_()
    task.losses(TaskRows(z, labels_N, torch.ones(5), None)).sum().backward()

    torch.testing.assert_close(task.predict(z.detach()), torch.full((5,), 2.0))
    assert z.grad is not None
    assert z.grad[[0, 1, 3, 4]].sum() == 0


def test_zero_inflated_lognormal_is_its_likelihood_and_predicts_its_mean() -> None:
    task = ZeroInflatedLognormalTaskConfig(label="y").build()
    logits_BK, labels = drawn(3), [0.0, 0.5, 1.0, 0.0, 30.0, 1000.0]

    losses, expected = [], []
    for (any_, mu, spread), label in zip(logits_BK.tolist(), labels, strict=True):
        p, sigma = sigmoid(any_), softplus(spread)
        likelihood = 1 - p
        if label > 0:
            density = math.exp(-((math.log(label) - mu) ** 2) / (2 * sigma**2)) / (
                label * sigma * math.sqrt(2 * math.pi)
            )
            likelihood = p * density
        losses.append(-math.log(likelihood))
        expected.append(p * math.exp(mu + sigma**2 / 2))

    assert losses_of(task, logits_BK, labels) == pytest.approx(losses)
    assert task.predict(logits_BK).tolist() == pytest.approx(expected)


def test_median_of_a_zero_inflated_lognormal_halves_the_rows() -> None:
    task = ZeroInflatedLognormalTaskConfig(label="y").build()
    generator = torch.Generator().manual_seed(0)
    logits_B3 = torch.tensor([[1.5, 2.0, 0.5]]).repeat(100_000, 1)
    is_any_B = torch.rand(100_000, generator=generator) < torch.sigmoid(logits_B3[:, 0])
    sigma = torch.nn.functional.softplus(torch.tensor(0.5))
    amounts_B = is_any_B * torch.exp(2.0 + sigma * torch.randn(100_000, generator=generator))
    median = float(amounts_B.median())

    error_B = task.measures(logits_B3, torch.zeros(100_000))["mae"]
    none_B = task.measures(torch.tensor([[-0.1, 2.0, 0.5]]), torch.zeros(1))["mae"]

    # Against labels of 0 the absolute error is the median itself; where most have no amount it is 0.
    assert float(error_B[0]) == pytest.approx(median, rel=0.02)
    assert float(none_B) == 0
    assert float(task.predict(logits_B3)[0]) == pytest.approx(float(amounts_B.mean()), rel=0.02)


def test_log1p_regression_adds_the_deviance_of_the_mean_to_the_squared_error() -> None:
    task = RegressionTaskConfig(label="y", transform="log1p").build()
    logits_BK, labels = drawn(2), [0.0, 1.0, 5.0, 20.0, -3.0, 0.5]

    losses, expected = [], []
    for (z, d), label in zip(logits_BK.tolist(), labels, strict=True):
        target = math.copysign(math.log(1 + abs(label)), label)
        sign = -1 if z < 0 else 1
        r = sign * (target - z) - d
        losses.append((z - target) ** 2 + MEAN_SHARE * (math.exp(r) - r - 1))
        expected.append(sign * (math.exp(abs(z) + d) - 1))

    assert losses_of(task, logits_BK, labels) == pytest.approx(losses)
    assert task.predict(logits_BK).tolist() == pytest.approx(expected)


def test_deviance_is_least_where_the_mean_is_right_and_leaves_the_median_alone() -> None:
    task = RegressionTaskConfig(label="y", transform="log1p").build()
    seconds_N = torch.exp(2 + 0.9 * torch.randn(5000, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    logits_2 = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits_2], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        rows = TaskRows(logits_2.repeat(5000, 1), seconds_N, torch.ones(5000), None)
        total: torch.Tensor = task.losses(rows).mean()
        total.backward()
        return total

    optimizer.step(loss)

    smearing = float(torch.exp(torch.log1p(seconds_N) - torch.log1p(seconds_N).mean()).mean())
    assert float(logits_2.detach()[0]) == pytest.approx(float(torch.log1p(seconds_N).mean()), rel=1e-4)
    assert math.exp(float(logits_2.detach()[1])) == pytest.approx(smearing, rel=1e-4)
    assert float(task.predict(logits_2.detach()[None])) == pytest.approx(float(seconds_N.mean()), rel=1e-4)


def test_amount_far_beyond_what_was_expected_pulls_no_harder_than_the_largest_exponent() -> None:
    task = RegressionTaskConfig(label="y", transform="log1p").build()
    logits_B2 = torch.zeros(1, 2, requires_grad=True)

    loss_B = task.losses(TaskRows(logits_B2, torch.tensor([3e38]), torch.ones(1), None))
    loss_B.sum().backward()

    assert torch.isfinite(loss_B).all()
    assert logits_B2.grad is not None
    assert float(logits_B2.grad[0, 1]) == pytest.approx(-MEAN_SHARE * (math.exp(LARGEST_EXPONENT) - 1), rel=1e-4)

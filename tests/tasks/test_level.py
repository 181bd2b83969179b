"""Predictions of amounts are made to sum to their labels."""

import math

import pytest
import torch

from recmoe.tasks.binary import BinaryTaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.level import EXPECTED_ERROR, Level
from recmoe.tasks.regression import RegressionTaskConfig
from recmoe.tasks.zero_inflated_lognormal import ZeroInflatedLognormalTaskConfig


def test_ratio_that_is_known_for_sure_is_followed() -> None:
    labels_N = torch.tensor([2.0, 4.0, 8.0])

    assert Level(logit=0, offset=0.0).shift(labels_N / 2, labels_N) == pytest.approx(math.log(2))
    assert Level(logit=0, offset=1.0).shift(labels_N - 1, labels_N) < math.log(14 / 11)


def test_ratio_that_is_known_badly_is_followed_less() -> None:
    predictions_N, labels_N = torch.tensor([5.0, 5.0]), torch.tensor([0.0, 20.0])

    shift = Level(logit=0, offset=0.0).shift(predictions_N, labels_N)

    # The ratio is 2, and its standard error the root of two squares of 10, over 20.
    error = math.sqrt(200) / 20
    assert shift == pytest.approx(math.log(2) * EXPECTED_ERROR**2 / (EXPECTED_ERROR**2 + error**2))


@pytest.mark.parametrize("labels", [[], [3.0], [0.0, 0.0], [-5.0, 1.0]])
def test_rows_that_tell_no_ratio_shift_nothing(labels: list[float]) -> None:
    assert Level(logit=0, offset=0.0).shift(torch.ones(len(labels)), torch.tensor(labels)) == 0.0


def test_shifted_amounts_are_right_on_average_and_all_else_stays() -> None:
    tasks = TaskSet(
        {
            "ctr": BinaryTaskConfig(label="click"),
            "watch": RegressionTaskConfig(label="seconds", transform="log1p"),
            "spend": ZeroInflatedLognormalTaskConfig(label="spend"),
        }
    )
    logits_BZ = torch.randn(2000, 6, generator=torch.Generator().manual_seed(0)) * 0.1 + 1.5
    before_BT = tasks.predict(logits_BZ)
    labels = {"watch": 1.3 * (before_BT[:, 1] + 1) - 1, "spend": 0.8 * before_BT[:, 2]}

    shifts_Z = tasks.level_shifts(lambda name: (before_BT[:, tasks.names.index(name)], labels[name]))
    after_BT = tasks.predict(logits_BZ + shifts_Z)

    assert tasks.has_levels
    assert shifts_Z.nonzero()[:, 0].tolist() == [2, 4]
    assert torch.equal(after_BT[:, 0], before_BT[:, 0])
    torch.testing.assert_close(after_BT[:, 1].sum(), labels["watch"].sum(), rtol=1e-3, atol=0)
    torch.testing.assert_close(after_BT[:, 2].sum(), labels["spend"].sum(), rtol=1e-3, atol=0)
    assert not TaskSet({"ctr": BinaryTaskConfig(label="click")}).has_levels

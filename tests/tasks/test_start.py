"""Where tasks begin: log-odds and means of their labels, in their spaces."""

import math

import pytest
import torch

from recmoe.tasks.binary import BinaryTaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.product import ProductTaskConfig
from recmoe.tasks.regression import RegressionTaskConfig
from recmoe.tasks.start import LabelSums, TaskStart

NAN = math.nan
TASKS = TaskSet(
    {
        "ctr": BinaryTaskConfig(label="click"),
        "ctcvr": ProductTaskConfig(of=("ctr", "cvr")),
        "cvr": BinaryTaskConfig(label="buy", space="click"),
        "watch": RegressionTaskConfig(label="seconds", transform="log1p", predicts="median"),
    }
)


def labels(**columns: list[float]) -> torch.Tensor:
    names = [label.name for label in TASKS.label_columns]
    return torch.tensor([columns[name] for name in names], dtype=torch.float32).T


# Three clicks in six rows, one of them with a purchase; seconds are known of two rows.
SIX = labels(
    click=[1, 0, 1, 0, 1, 0],
    buy=[0, 0, 1, 0, 0, 0],
    seconds=[math.e - 1, NAN, NAN, math.e**3 - 1, NAN, NAN],
)


def test_starts_are_log_odds_and_means_on_the_scale_of_the_error() -> None:
    ctr, cvr, watch = TASKS.starts(TASKS.label_sums(SIX))

    # (positives + 1/2) / (rows + 1), so that a label that never varies has odds, too. A product has no tower.
    assert ctr == TaskStart(logit=pytest.approx(math.log(3.5 / 3.5)), unit=1.0)
    assert cvr == TaskStart(logit=pytest.approx(math.log(1.5 / 2.5)), unit=1.0)
    # log1p of the seconds is 1 and 3.
    assert watch == TaskStart(logit=pytest.approx(2.0), unit=pytest.approx(1.0))


def test_sums_of_parts_are_the_sums_of_the_whole() -> None:
    parts = TASKS.label_sums(SIX[:2]) + TASKS.label_sums(SIX[2:])

    whole = TASKS.label_sums(SIX)

    assert parts.num_rows_S.tolist() == whole.num_rows_S.tolist() == [6, 3, 2]
    assert parts.sums_S.tolist() == pytest.approx([3, 1, 4])
    assert parts.squares_S.tolist() == pytest.approx([3, 1, 10])


@pytest.mark.parametrize(("label", "logit"), [(0.0, math.log(0.5 / 4.5)), (1.0, math.log(4.5 / 0.5))])
def test_label_that_never_varies_has_finite_odds(label: float, logit: float) -> None:
    sums = LabelSums.of(torch.full((4, 1), label), torch.ones(4, 1))

    assert sums.binary_start(0).logit == pytest.approx(logit)


@pytest.mark.parametrize(("values", "start"), [([], TaskStart(0.0, 1.0)), ([5.0, 5.0], TaskStart(5.0, 1.0))])
def test_value_without_spread_has_a_unit_of_one(values: list[float], start: TaskStart) -> None:
    sums = LabelSums.of(torch.tensor(values)[:, None], torch.ones(len(values), 1))

    assert sums.value_start(0) == start

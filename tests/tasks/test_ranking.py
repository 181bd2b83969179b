"""Ranking tasks against loops written from the papers."""

import math

import pytest
import torch

from recmoe.features.batch import NO_GROUP
from recmoe.tasks.ranking import RankingTask
from recmoe.tasks.task import TaskRows

SCORES = torch.tensor([0.3, -1.2, 2.0, 0.1, 0.7, -0.4, 1.5, 0.2, 5.0, -5.0])
LABELS = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0])
# Rows of list 4 stand apart; list 9 has a positive alone; the last two rows are in no list; one row does not count.
LISTS = torch.tensor([4, 4, 7, 7, 4, 4, 9, 7, NO_GROUP, NO_GROUP])
COUNTS = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0])


def rivals(i: int) -> list[int]:
    """Rows of the list of a positive row that are not positive and count."""
    return [
        j
        for j in range(10)
        if LISTS[j] == LISTS[i] != NO_GROUP and COUNTS[j] == 1 and LABELS[j] == 0 and COUNTS[i] == 1
    ]


def pairwise_by_hand() -> list[float]:
    losses = []
    for i in range(10):
        others = rivals(i) if LABELS[i] == 1 else []
        pairs = [math.log(1 + math.exp(float(SCORES[j] - SCORES[i]))) for j in others]
        losses.append(sum(pairs) / len(pairs) if pairs else 0.0)
    return losses


def listwise_by_hand() -> list[float]:
    losses = []
    for i in range(10):
        others = rivals(i) if LABELS[i] == 1 else []
        total = sum(math.exp(float(SCORES[j])) for j in [i, *others])
        losses.append(-math.log(math.exp(float(SCORES[i])) / total))
    return losses


def rows(scores_B: torch.Tensor) -> TaskRows:
    return TaskRows(scores_B[:, None], LABELS, COUNTS, LISTS)


@pytest.mark.parametrize(("loss", "by_hand"), [("pairwise", pairwise_by_hand()), ("listwise", listwise_by_hand())])
def test_loss_equals_a_loop_written_from_the_paper(loss: str, by_hand: list[float]) -> None:
    losses_B = RankingTask(loss=loss).losses(rows(SCORES))  # type: ignore[arg-type]

    assert sum(value > 0 for value in by_hand) == 3
    torch.testing.assert_close(losses_B, torch.tensor(by_hand))


@pytest.mark.parametrize("loss", ["pairwise", "listwise"])
def test_what_all_rows_of_a_list_share_does_not_matter(loss: str) -> None:
    task = RankingTask(loss=loss)  # type: ignore[arg-type]
    shifted_B = SCORES + torch.where(LISTS == 4, 3.0, 0.0)

    torch.testing.assert_close(task.losses(rows(shifted_B)), task.losses(rows(SCORES)))


@pytest.mark.parametrize("loss", ["pairwise", "listwise"])
def test_batch_without_a_positive_row_has_no_loss_and_a_gradient_of_zero(loss: str) -> None:
    scores_B1 = torch.randn(4, 1, requires_grad=True)
    nothing = TaskRows(scores_B1, torch.zeros(4), torch.ones(4), torch.tensor([1, 1, 2, 2]))

    total = RankingTask(loss=loss).losses(nothing).sum()  # type: ignore[arg-type]
    total.backward()

    assert total == 0
    assert scores_B1.grad is not None
    assert not scores_B1.grad.any()

"""Rules that share out experts in training, against the loops of their papers."""

import math

import pytest
import torch
from torch import Tensor

from recmoe.moe.gates.in_training.batch_priority import BatchPriority
from recmoe.moe.gates.in_training.expert_choice import ExpertChoice
from recmoe.moe.gates.in_training.first_come import FirstCome
from recmoe.moe.gates.in_training.rule import Rule

SHAPES = pytest.mark.parametrize(
    ("num_rows", "num_experts", "k"), [(0, 3, 1), (1, 4, 1), (50, 4, 1), (50, 4, 2), (7, 5, 3), (20, 1, 1), (9, 3, 3)]
)


def scores_of(num_rows: int, num_experts: int) -> Tensor:
    """Probabilities that favour the first experts."""
    torch.manual_seed(0)
    return torch.softmax(torch.randn(num_rows, num_experts) - torch.arange(num_experts), dim=1)


def first_come_by_hand(scores_BV: Tensor, k: int, capacity_factor: float) -> list[set[int]]:
    num_rows, num_experts = scores_BV.shape
    room = [min(num_rows, math.ceil(capacity_factor * k * num_rows / num_experts))] * num_experts
    given: list[set[int]] = [set() for _ in range(num_rows)]
    while True:
        # A row asks for one expert in a round; what has room at its beginning counts.
        open_experts = [expert for expert in range(num_experts) if room[expert] > 0]
        asked = False
        for row in range(num_rows):
            wanted = [expert for expert in open_experts if expert not in given[row]]
            if len(given[row]) == k or not wanted:
                continue
            asked = True
            best = max(wanted, key=lambda expert: float(scores_BV[row, expert]))
            if room[best] > 0:
                room[best] -= 1
                given[row].add(best)
        if not asked:
            return given


def batch_priority_by_hand(scores_BV: Tensor, k: int, capacity_factor: float) -> list[set[int]]:
    num_rows, num_experts = scores_BV.shape
    room = [math.ceil(capacity_factor * k * num_rows / num_experts)] * num_experts
    given: list[set[int]] = [set() for _ in range(num_rows)]
    order = sorted(range(num_rows), key=lambda row: -float(scores_BV[row].max()))
    for choice in range(k):
        for row in order:
            expert = sorted(range(num_experts), key=lambda expert: -float(scores_BV[row, expert]))[choice]
            if room[expert] > 0:
                room[expert] -= 1
                given[row].add(expert)
    return given


def expert_choice_by_hand(scores_BV: Tensor, k: int, capacity_factor: float) -> list[set[int]]:
    num_rows, num_experts = scores_BV.shape
    given: list[set[int]] = [set() for _ in range(num_rows)]
    for expert in range(num_experts):
        rows = sorted(range(num_rows), key=lambda row: -float(scores_BV[row, expert]))
        for row in rows[: math.ceil(capacity_factor * k * num_rows / num_experts)]:
            given[row].add(expert)
    return given


def experts_of(is_given_BV: Tensor) -> list[set[int]]:
    return [set(row_V.nonzero().flatten().tolist()) for row_V in is_given_BV]


@SHAPES
@pytest.mark.parametrize("capacity_factor", [1.0, 1.25, 3.0])
def test_first_come_equals_the_rounds_of_the_paper(
    num_rows: int, num_experts: int, k: int, capacity_factor: float
) -> None:
    scores_BV = scores_of(num_rows, num_experts)

    is_given_BV = FirstCome(capacity_factor=capacity_factor)(scores_BV, k)

    assert experts_of(is_given_BV) == first_come_by_hand(scores_BV, k, capacity_factor)


@SHAPES
@pytest.mark.parametrize("capacity_factor", [0.3, 1.0, 3.0])
def test_batch_priority_equals_the_algorithm_of_the_paper(
    num_rows: int, num_experts: int, k: int, capacity_factor: float
) -> None:
    scores_BV = scores_of(num_rows, num_experts)

    is_given_BV = BatchPriority(capacity_factor=capacity_factor)(scores_BV, k)

    assert experts_of(is_given_BV) == batch_priority_by_hand(scores_BV, k, capacity_factor)


@pytest.mark.parametrize(("num_rows", "num_experts", "k"), [(0, 3, 1), (1, 4, 1), (50, 4, 1), (50, 4, 2), (7, 5, 3)])
@pytest.mark.parametrize("capacity_factor", [0.3, 1.0, 3.0])
def test_expert_choice_is_the_best_rows_of_every_expert(
    num_rows: int, num_experts: int, k: int, capacity_factor: float
) -> None:
    scores_BV = scores_of(num_rows, num_experts)

    is_given_BV = ExpertChoice(capacity_factor=capacity_factor)(scores_BV, k)

    assert experts_of(is_given_BV) == expert_choice_by_hand(scores_BV, k, capacity_factor)


def test_first_come_gives_every_row_an_expert_even_where_all_want_the_same() -> None:
    scores_BV = torch.tensor([[0.7, 0.2, 0.1]]).repeat(10, 1)

    is_given_BV = FirstCome(capacity_factor=1.0)(scores_BV, 1)

    # Room for 4 rows each, in the order of the batch.
    assert is_given_BV.int().argmax(1).tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert is_given_BV.sum(1).tolist() == [1] * 10


def test_batch_priority_keeps_the_rows_that_are_surest() -> None:
    scores_BV = torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.7, 0.3], [0.8, 0.2]])

    is_given_BV = BatchPriority(capacity_factor=1.0)(scores_BV, 1)

    assert is_given_BV.tolist() == [[False, False], [True, False], [False, False], [True, False]]


@pytest.mark.parametrize(
    "rule", [FirstCome(1.0), BatchPriority(1.0), ExpertChoice(1.0)], ids=lambda r: type(r).__name__
)
def test_no_expert_takes_more_rows_than_it_has_room_for(rule: Rule) -> None:
    scores_BV = scores_of(64, 4)

    is_given_BV = rule(scores_BV, 2)

    assert is_given_BV.sum(0).max() == 32


@pytest.mark.parametrize("rule", [FirstCome(1.0), BatchPriority(1.0), ExpertChoice(1.0)])
def test_nothing_is_read_on_the_host_where_it_would_have_to_wait_for_a_device(rule: Rule) -> None:
    # A tensor without numbers: whatever asks for one, such as whether all rows are placed, fails.
    scores_BV = torch.rand(20, 4, device="meta")

    is_given_BV = rule(scores_BV, 2)

    assert is_given_BV.shape == (20, 4)
    with pytest.raises(RuntimeError, match="meta"):
        bool(is_given_BV.any())

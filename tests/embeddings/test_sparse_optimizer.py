"""Sparse optimizers of the plain back end."""

from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from recmoe.embeddings.sparse_optimizer import (
    AdagradConfig,
    AdamConfig,
    RowwiseAdagradConfig,
    SGDConfig,
    SparseOptimizer,
    SparseOptimizerConfig,
)

KINDS = [kind() for kind in get_args(get_args(SparseOptimizerConfig)[0])]
ALL = pytest.mark.parametrize("rule", KINDS, ids=[rule.kind for rule in KINDS])


def stepped(rule: SparseOptimizerConfig, gradients: list[Tensor]) -> Tensor:
    """A table of three rows of ones after some steps."""
    weight = nn.Parameter(torch.ones(3, 2))
    optimizer = SparseOptimizer({"t": weight}, rule)
    for gradient in gradients:
        weight.grad = gradient
        optimizer.step()
    return weight.detach()


def sparse(row: int, values: list[float]) -> Tensor:
    """A gradient that touches one row of three."""
    return torch.sparse_coo_tensor(torch.tensor([[row]]), torch.tensor([values]), (3, 2), check_invariants=True)


def test_rowwise_adagrad_divides_by_the_root_of_the_mean_square() -> None:
    weight = stepped(RowwiseAdagradConfig(lr=0.5), [sparse(1, [1.0, 7.0])])

    assert weight[1].tolist() == pytest.approx([1 - 0.5 * 1 / 5, 1 - 0.5 * 7 / 5])


def test_rowwise_adagrad_adds_up_steps() -> None:
    weight = stepped(RowwiseAdagradConfig(lr=1.0), [sparse(1, [3.0, 3.0]), sparse(1, [4.0, 4.0])])

    assert weight[1].tolist() == pytest.approx([1 - 3 / 3 - 4 / 5] * 2)


def test_adagrad_divides_every_weight_by_its_own_root() -> None:
    weight = stepped(AdagradConfig(lr=0.5), [sparse(1, [1.0, 7.0]), sparse(1, [0.0, 24.0])])

    assert weight[1].tolist() == pytest.approx([1 - 0.5, 1 - 0.5 - 0.5 * 24 / 25])


def test_sgd_subtracts_the_gradient() -> None:
    weight = stepped(SGDConfig(lr=0.5), [sparse(2, [1.0, -2.0])])

    assert weight[2].tolist() == [0.5, 2.0]


def test_first_step_of_adam_is_the_rate_in_the_direction_of_the_sign() -> None:
    weight = stepped(AdamConfig(lr=0.5), [sparse(0, [3.0, -0.01])])

    assert weight[0].tolist() == pytest.approx([0.5, 1.5], rel=1e-4)


@ALL
def test_untouched_rows_stay(rule: SparseOptimizerConfig) -> None:
    weight = stepped(rule, [sparse(1, [1.0, 2.0]), sparse(1, [1.0, 2.0])])

    assert weight[[0, 2]].tolist() == [[1.0, 1.0], [1.0, 1.0]]


@ALL
def test_repeated_rows_are_stepped_once_by_their_sum(rule: SparseOptimizerConfig) -> None:
    twice = torch.sparse_coo_tensor(
        torch.tensor([[1, 1]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]), (3, 2), check_invariants=True
    )

    assert torch.equal(stepped(rule, [twice]), stepped(rule, [sparse(1, [4.0, 6.0])]))


@ALL
def test_dense_gradient_steps_like_a_sparse_one(rule: SparseOptimizerConfig) -> None:
    gradients = [sparse(1, [1.0, 2.0]), sparse(0, [-1.0, 5.0])]

    assert torch.equal(stepped(rule, [g.to_dense() for g in gradients]), stepped(rule, gradients))


def test_step_drops_gradients_and_does_nothing_without_one() -> None:
    weight = nn.Parameter(torch.ones(3, 2))
    optimizer = SparseOptimizer({"t": weight}, SGDConfig(lr=1.0))
    weight.grad = sparse(0, [1.0, 1.0])

    optimizer.step()
    optimizer.step()

    assert weight.grad is None
    assert weight[0].tolist() == [0.0, 0.0]


def test_rate_follows_the_schedule() -> None:
    weight = nn.Parameter(torch.ones(3, 2))
    optimizer = SparseOptimizer({"t": weight}, SGDConfig(lr=0.5))

    optimizer.scale_lr(0.25)
    weight.grad = sparse(0, [1.0, 2.0])
    optimizer.step()

    assert optimizer.lr == 0.125
    assert weight[0].tolist() == [0.875, 0.75]

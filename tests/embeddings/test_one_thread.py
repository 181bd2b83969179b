"""Look-ups on one thread, whatever the number of threads around them."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from recmoe.embeddings.one_thread import on_one_thread


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class Doubled(torch.autograd.Function):
    """Twice the input; notes down the threads of both passes."""

    seen: list[int]

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        del ctx
        Doubled.seen = [torch.get_num_threads()]
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        del ctx
        Doubled.seen.append(torch.get_num_threads())
        return gradient * 2


def doubled(x: Tensor) -> Tensor:
    result: Tensor = Doubled.apply(x)  # type: ignore[no-untyped-call]
    return result


def test_both_passes_run_on_one_thread_and_the_others_come_back() -> None:
    weight = torch.tensor([3.0], requires_grad=True)
    scale = torch.tensor([5.0], requires_grad=True)

    (twice,) = on_one_thread(lambda: (doubled(weight),))
    result = twice * scale
    threads_between = torch.get_num_threads()
    result.sum().backward()

    assert Doubled.seen == [1, 1]
    assert (threads_between, torch.get_num_threads()) == (2, 2)
    assert weight.grad is not None
    assert scale.grad is not None
    assert (result.item(), weight.grad.item(), scale.grad.item()) == (30.0, 10.0, 6.0)


def test_gradient_arrives_in_one_piece() -> None:
    seen = []
    rows = torch.zeros(4, 2, requires_grad=True)
    rows.register_hook(lambda gradient: seen.append(gradient.is_contiguous()))

    (result,) = on_one_thread(lambda: (rows.view(4, 2),))
    torch.cat([result, torch.zeros(4, 3)], dim=1).square().sum().backward()

    assert seen == [True]


def test_several_results_share_one_backward_pass() -> None:
    weight = torch.tensor([3.0], requires_grad=True)

    twice, same, unused = on_one_thread(lambda: (doubled(weight), weight * 1, weight * 7))
    (twice + 10 * same).sum().backward()

    assert unused.item() == 21.0
    assert weight.grad is not None
    assert weight.grad.item() == 12.0


def test_without_gradients_there_is_no_graph() -> None:
    weight = torch.tensor([3.0], requires_grad=True)

    with torch.no_grad():
        (result,) = on_one_thread(lambda: (doubled(weight),))

    assert Doubled.seen == [1]
    assert not result.requires_grad


def test_threads_come_back_after_an_error() -> None:
    def fail() -> tuple[Tensor, ...]:
        raise RuntimeError("no such row")

    with pytest.raises(RuntimeError, match="no such row"):
        on_one_thread(fail)

    assert torch.get_num_threads() == 2

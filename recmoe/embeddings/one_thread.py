"""on_one_thread(): a look-up and its backward pass, kept on one thread of the CPU.

fbgemm's CPU kernels compute on one thread and still open a team of threads per table, several times in every
backward pass. Waking the second thread of a team costs more than the work: the backward pass of 26 tables took
11 ms on two threads and 3 ms on one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def on_one_thread(look_up: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """The results of a look-up; forward and backward, with the update fused into it, run on one thread."""
    if torch.get_num_threads() == 1:
        return look_up()
    if not torch.is_grad_enabled():
        with _one_thread():
            return look_up()
    # Without an input that wants a gradient, autograd would not come back to the look-up.
    results: tuple[Tensor, ...] = _OneThread.apply(  # type: ignore[no-untyped-call]
        torch.empty(0, requires_grad=True), look_up
    )
    return results


class _OneThread(torch.autograd.Function):
    """A graph of its own inside the graph, so that threads can be put away before its backward and given back after."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, look_up: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        del anchor
        with _one_thread(), torch.enable_grad():
            ctx.inner = look_up()
        return tuple(inner.detach() for inner in ctx.inner)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        # The kernels would copy a slice of a wider gradient, on their one thread.
        whole = [gradient.contiguous() for gradient in gradients]
        with _one_thread():
            torch.autograd.backward(ctx.inner, whole)
        return None, None


@contextmanager
def _one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)

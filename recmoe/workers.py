"""What all workers of a job have together; alone, a process is all of them."""

# N rows here, M rows that arrive; W workers

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch import distributed as dist
from torch.autograd.function import once_differentiable

Box = tuple[tuple[int, ...], tuple[int, ...]]
"""A part of a tensor: where it begins and how large it is, a number per dimension."""


def num_workers() -> int:
    """Processes that train one model."""
    return dist.get_world_size() if dist.is_initialized() else 1


def sum_over_workers(values: Tensor) -> Tensor:
    """The sum of every worker's values, the same in each; collective."""
    if num_workers() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


def mean_over_workers(values: Tensor) -> Tensor:
    """The mean of every worker's values, the same in each; collective."""
    return values if num_workers() == 1 else sum_over_workers(values) / num_workers()


@dataclass
class Travel:
    """What rows that were exchanged have cost, since the last look."""

    num_rows: int = 0
    """Rows that this worker has sent to others, to be computed there; what comes back is not counted once more."""
    _seconds: float = 0.0
    _on_device: list[tuple[torch.cuda.Event, torch.cuda.Event]] = field(default_factory=list)

    @contextmanager
    def timed(self, device: torch.device) -> Iterator[None]:
        """Counts what is done inside, the wait for other workers included."""
        if device.type == "cuda":
            # The host does not wait for a GPU: events say when it began and ended.
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begin.record()
            yield
            end.record()
            self._on_device.append((begin, end))
            return
        started_s = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - started_s

    def take(self) -> tuple[float, int]:
        """Seconds and rows, and begin anew; waits for a GPU."""
        for begin, end in self._on_device:
            end.synchronize()
            self._seconds += begin.elapsed_time(end) / 1e3
        seconds, num_rows = self._seconds, self.num_rows
        self.num_rows, self._seconds, self._on_device = 0, 0.0, []
        return seconds, num_rows


def exchange(values: Tensor, *, sent: Sequence[int], received: Sequence[int], travel: Travel) -> Tensor:
    """Send rows to every worker and get rows from each; collective, and so is its backward, which sends gradients back.

    Args:
        values: N rows, those for worker 0 first; where the backend of the default group can read them.
        sent: how many of them are for each worker.
        received: how many come from each worker.
        travel: where the time is counted.

    Returns:
        M rows, those of worker 0 first.
    """
    return _Exchange.apply(values, sent, received, travel)  # type: ignore[no-any-return, no-untyped-call]


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, sent: Sequence[int], received: Sequence[int], travel: Travel) -> Tensor:
        ctx.sent, ctx.received, ctx.travel = sent, received, travel
        return _exchanged(values, sent, received, travel)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _exchanged(grad, ctx.received, ctx.sent, ctx.travel), None, None, None


def _exchanged(values: Tensor, sent: Sequence[int], received: Sequence[int], travel: Travel) -> Tensor:
    arrived = values.new_empty(sum(received), *values.shape[1:])
    with travel.timed(values.device):
        dist.all_to_all_single(arrived, values.contiguous(), list(received), list(sent))
    return arrived


@dataclass(frozen=True)
class DividedTensor:
    """A parameter whose parts are held by several workers, each part by one.

    Example: the first layer of three experts, of which worker 0 holds two::

            shape (3, 8, 4)     box_of_worker {0: ((0, 0, 0), (2, 8, 4)), 1: ((2, 0, 0), (1, 8, 4))}
    """

    shape: tuple[int, ...]
    """Of the whole."""
    box_of_worker: Mapping[int, Box]
    """Of each worker that holds a part."""
    here: str | None
    """The name of this worker's part in the module that holds it."""


@runtime_checkable
class HoldsParts(Protocol):
    """A module that holds parts of parameters; other workers hold the other parts."""

    def divided(self) -> Mapping[str, DividedTensor]:
        """By the names that the whole parameters would have in its place."""
        ...

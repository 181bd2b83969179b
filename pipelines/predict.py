"""Prediction in Ray Data: workers make a part of the predictions each."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from pipelines.ray_pool import RayPool, see
from pipelines.ray_session import ray_session

T = TypeVar("T")
A = TypeVar("A")


def parts_on_ray(num_workers: int, folder: Path, write: Callable[[A], T], parts: Sequence[A]) -> Iterator[T]:
    """``write`` of every part, in so many workers of Ray Data, in order.

    Args:
        folder: where the parts go; every worker sees it.

    Raises:
        RecmoeError: what ``write`` has raised.
        TrainingError: workers died again and again.
    """
    with ray_session(num_workers=num_workers):
        pool = RayPool(num_workers, doing="the prediction", if_memory="lower the number of workers")
        yield from pool.map(partial(_write, folder.resolve(), write), parts)


def _write(folder: Path, write: Callable[[A], T], part: A) -> T:
    see(folder, named_by="--to")
    return write(part)

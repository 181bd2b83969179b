"""together(): an action that every rank does, and an error that every rank sees."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import distributed as dist
from torch.distributed.checkpoint.api import CheckpointException

from recmoe.errors import CheckpointError

T = TypeVar("T")


def is_alone() -> bool:
    """Whether this process has no peers."""
    return not dist.is_initialized() or dist.get_world_size() == 1


def rank() -> int:
    """This process among its peers; 0 without any."""
    return 0 if is_alone() else dist.get_rank()


def world_size() -> int:
    """Processes of the job."""
    return 1 if is_alone() else dist.get_world_size()


def gather(value: T) -> list[T]:
    """The value of every rank, in every rank."""
    if is_alone():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def together(action: Callable[[], T]) -> T:
    """Do something in every rank; where it fails in one, raise its error in all of them.

    Raises:
        CheckpointError: the first rank's that failed.
    """
    result: T | None = None
    failure: BaseException | None = None
    try:
        result = action()
    except (CheckpointError, OSError, RuntimeError, ValueError, CheckpointException) as error:
        failure = error
    messages = [message for message in gather(_describe(failure)) if message is not None]
    if messages:
        raise CheckpointError(messages[0]) from failure
    return result  # type: ignore[return-value]


def _describe(failure: BaseException | None) -> str | None:
    if failure is None or isinstance(failure, CheckpointError):
        return None if failure is None else str(failure)
    if isinstance(failure, CheckpointException) and failure.failures:
        rank, (cause, _) = min(failure.failures.items())
        return f"rank {rank}: {type(cause).__name__}: {cause}"
    return f"{type(failure).__name__}: {failure}"

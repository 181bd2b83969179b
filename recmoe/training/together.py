"""together(): an action that every rank does, and an error that every rank sees."""

import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import distributed as dist

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


def gather(value: T, group: dist.ProcessGroup | None = None) -> list[T]:
    """The value of every rank, in every rank.

    Args:
        group: of all ranks; the default group without it. A thread beside the training needs its own.
    """
    if is_alone():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value, group=group)
    return values


def together(action: Callable[[], T], group: dist.ProcessGroup | None = None) -> T:
    """Do something in every rank; where it fails in one, raise its error in all of them.

    Raises:
        CheckpointError: the first rank's that failed.
    """
    result: T | None = None
    failure: BaseException | None = None
    try:
        result = action()
    except (CheckpointError, OSError, RuntimeError, ValueError) as error:
        failure = error
    messages = [message for message in gather(_describe(failure), group) if message is not None]
    if messages:
        raise CheckpointError(messages[0]) from failure
    return result  # type: ignore[return-value]


def check_shared(root: Path) -> None:
    """CheckpointError, in every rank, where one does not see what the first one writes. Collective."""
    if is_alone():
        return
    mark = root / f".seen-{gather(secrets.token_hex(4))[0]}"

    def leave() -> None:
        root.mkdir(parents=True, exist_ok=True)
        mark.touch()

    def look() -> None:
        if not mark.exists():
            raise CheckpointError(
                f"rank {rank()} on {socket.gethostname()} does not see {root} of rank 0; checkpoints need a folder "
                "that all workers share: set --run-dir to one on a network disk"
            )

    together(lambda: leave() if rank() == 0 else None)
    try:
        together(look)
    finally:
        if rank() == 0:
            mark.unlink()


def _describe(failure: BaseException | None) -> str | None:
    if failure is None or isinstance(failure, CheckpointError):
        return None if failure is None else str(failure)
    return f"{type(failure).__name__}: {failure}"

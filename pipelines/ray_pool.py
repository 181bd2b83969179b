"""RayPool: a function over pieces of work in Ray Data, with errors as one process would raise them."""

import logging
import pickle
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from recmoe.errors import DataError, RecmoeError, TrainingError

T = TypeVar("T")

MAX_RETRIES = 3
"""Times that a piece is done again after its worker died."""


class RayPool:
    """Workers of Ray Data that take piece after piece, in a ``ray_session``.

    Args:
        num_workers: pieces that are worked on at a time.
        doing: what the workers do, as a message says it.
        if_memory: what to do if they died for want of memory.
    """

    def __init__(self, num_workers: int, *, doing: str, if_memory: str) -> None:
        self._num_workers, self._doing, self._if_memory = num_workers, doing, if_memory

    def map(self, function: Callable[[Any], T], work: Sequence[Any]) -> Iterator[T]:
        """What a function makes of each piece of work, in order; the error of the first piece that has one.

        Raises:
            RecmoeError: what the function has raised.
            TrainingError: its workers died again and again.
        """
        import ray.data
        from ray.exceptions import RayError, RayTaskError
        from ray.util.annotations import RayDeprecationWarning

        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.execution_options.preserve_order = True
        pieces = ray.data.from_items([pickle.dumps(piece) for piece in work], override_num_blocks=len(work))
        compute = ray.data.TaskPoolStrategy(size=min(self._num_workers, len(work)))
        with warnings.catch_warnings():
            # Deprecated, with nothing yet in its place; without it Ray Data tries again for ever.
            warnings.simplefilter("ignore", RayDeprecationWarning)
            results = pieces.map(
                partial(_answer, function),
                num_cpus=1,
                compute=compute,
                ray_remote_args_fn=lambda: {"max_retries": MAX_RETRIES},
            )
        try:
            for row in results.iter_rows():
                result = pickle.loads(row["result"])
                if isinstance(result, RecmoeError):
                    raise result
                yield result
        except RayTaskError:
            raise
        except RayError as error:
            cause = str(error).strip().splitlines()[0].strip()
            raise TrainingError(
                f"workers of {self._doing} died {MAX_RETRIES + 1} times ({cause}); if it was for want of memory, "
                f"{self._if_memory}, and start it again"
            ) from error


def see(folder: Path, *, named_by: str) -> None:
    """DataError on a machine that does not see a folder.

    Args:
        named_by: the option that places it.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder.parent}: node {socket.gethostname()} does not see this folder; put {named_by} where all nodes "
            "see it under the same path"
        )


def _answer(function: Callable[[Any], Any], row: Mapping[str, Any]) -> dict[str, bytes]:
    """Errors of recmoe are answers: Ray would try again, and hide them in its own."""
    try:
        result = function(pickle.loads(row["item"]))
    except RecmoeError as error:
        result = type(error)(str(error))
    return {"result": pickle.dumps(result)}

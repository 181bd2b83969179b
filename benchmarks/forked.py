"""run_processes(): a function in several processes over gloo, forked so that nothing is imported again."""

import multiprocessing
import os
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from torch import distributed as dist

TIMEOUT_S = 120
"""A run that takes longer has hung."""


def run_processes(work: Callable[[int, int], None], folder: Path, *, world_size: int) -> None:
    """Call ``work(rank, world_size)`` in every process of a group of its own, and wait.

    The caller must not have computed anything with torch: its threads would be missing in the copies.

    Raises:
        RuntimeError: a process failed or hung; what it said is on stderr.
    """
    processes = start_processes(work, folder, world_size=world_size)
    for process in processes:
        process.join(TIMEOUT_S)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
    if codes != [0] * world_size:
        raise RuntimeError(f"exit codes {codes} of {world_size} processes; None is one that hung")


def start_processes(
    work: Callable[[int, int], None], folder: Path, *, world_size: int, is_quiet: bool = False
) -> list[BaseProcess]:
    """The same without waiting; ``is_quiet`` where processes are expected to fail."""
    context = multiprocessing.get_context("fork")
    folder.mkdir(parents=True, exist_ok=True)
    rendezvous = folder / "rendezvous"
    rendezvous.unlink(missing_ok=True)
    processes: list[BaseProcess] = [
        context.Process(target=_run, args=(work, rendezvous, rank, world_size, is_quiet)) for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    return processes


def _run(work: Callable[[int, int], None], rendezvous: Path, rank: int, world_size: int, is_quiet: bool) -> None:
    if is_quiet:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{rendezvous}",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=TIMEOUT_S),
    )
    try:
        work(rank, world_size)
        dist.barrier()
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        dist.destroy_process_group()

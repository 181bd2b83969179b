"""Runtime: who this process is among its peers, on which device, with how many threads."""

import atexit
import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import distributed as dist
from torch._C._distributed_c10d import HashStore

from recmoe.errors import TrainingError
from recmoe.machine import Machine
from recmoe.training.allocator import keep_freed_memory

T = TypeVar("T")


@dataclass(frozen=True)
class Runtime:
    """One process of a training job; a job without peers is a world of one."""

    rank: int
    world_size: int
    local_world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """The process that logs, writes and reports."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; every process must ask equally often."""
        if self.world_size == 1:
            return flag
        votes = torch.tensor([int(flag)])
        dist.all_reduce(votes, op=dist.ReduceOp.MAX)
        return bool(votes.item())

    def gather(self, value: T) -> list[T]:
        """The value of every process, in rank order, in every process."""
        if self.world_size == 1:
            return [value]
        values: list[T | None] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]


def start_runtime(*, device: Literal["auto", "cpu", "cuda"] = "auto", timeout_s: float = 1800.0) -> Runtime:
    """Join the process group that a launcher announced, or found a world of one.

    torchrec's sharded tables need a process group even in a single process. It lives as long
    as the process: a second group in one process life aborts at exit.
    """
    kind = device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cuda" and not torch.cuda.is_available():
        raise TrainingError("device cuda was asked for and torch sees none; use device=cpu, or see `recmoe doctor`")
    if not dist.is_initialized():
        backend = "nccl" if kind == "cuda" else "gloo"
        if "WORLD_SIZE" in os.environ:
            dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
        else:
            dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
        atexit.register(_leave)
    local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", dist.get_world_size()))
    if kind == "cpu":
        # Threads of several processes on the same cores wait for each other at every barrier.
        torch.set_num_threads(max(1, int(Machine.read(Path.cwd()).usable_cores) // local_world_size))
        keep_freed_memory()
        place = torch.device("cpu")
    else:
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(place)
    return Runtime(dist.get_rank(), dist.get_world_size(), local_world_size, place)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()

from pathlib import Path

import pytest
import torch

from recmoe.errors import TrainingError
from recmoe.machine import Machine
from recmoe.training.runtime import (
    Runtime,
    start_runtime,
)

CPU = torch.device("cpu")
NUM_CORES = max(1, int(Machine.read(Path.cwd()).usable_cores))


def test_job_without_peers_is_a_world_of_one() -> None:
    runtime = start_runtime(device="cpu")

    assert (runtime.rank, runtime.world_size, runtime.local_world_size) == (0, 1, 1)
    assert runtime.is_main
    assert runtime.device == CPU
    assert torch.get_num_threads() == NUM_CORES
    assert (runtime.any(True), runtime.any(False)) == (True, False)
    assert runtime.gather("mine") == ["mine"]


def test_processes_of_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(2 * NUM_CORES))

    runtime = start_runtime(device="cpu")

    assert runtime.local_world_size == 2 * NUM_CORES
    assert torch.get_num_threads() == 1


def test_only_the_first_rank_is_main() -> None:
    assert not Runtime(rank=1, world_size=2, local_world_size=2, device=CPU).is_main


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_that_is_not_there_is_an_error() -> None:
    with pytest.raises(TrainingError, match=r"cuda was asked for and torch sees none; use device=cpu, or see `recmoe"):
        start_runtime(device="cuda")

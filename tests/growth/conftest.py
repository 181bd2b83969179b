"""A finished run to go on from, and what checkpoints hold."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recmoe.experiment import ExperimentConfig
from recmoe.runs.train import RunResult
from recmoe.training.snapshot import TENSORS
from recmoe.training.stored_tensors import StoredTensors


@pytest.fixture(scope="session")
def earlier_run(
    train: Callable[..., RunResult],
    make_experiment: Callable[..., ExperimentConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """One epoch over the log of the shop, with plain tables."""
    folder = tmp_path_factory.mktemp("earlier")
    return train(make_experiment(folder), folder / "run").folder.root


@pytest.fixture(scope="session")
def stored_tensor() -> Callable[[Path, str], Tensor]:
    """A whole tensor of a checkpoint."""

    def read(checkpoint: Path, name: str) -> Tensor:
        with StoredTensors(checkpoint / TENSORS) as stored:
            values = torch.empty(stored.tensors[name].shape, dtype=stored.tensors[name].dtype)
            stored.read_into(values, name, (0,) * values.ndim)
        return values

    return read

"""A finished run to go on from."""

from collections.abc import Callable
from pathlib import Path

import pytest

from recmoe.experiment import ExperimentConfig
from recmoe.runs.train import RunResult


@pytest.fixture(scope="session")
def earlier_run(
    train: Callable[..., RunResult],
    make_experiment: Callable[..., ExperimentConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """One epoch over the log of the shop, with plain tables."""
    folder = tmp_path_factory.mktemp("earlier")
    return train(make_experiment(folder), folder / "run").folder.root

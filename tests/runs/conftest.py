"""Small runs in this process."""

from collections.abc import Callable

import pytest

from recmoe.experiment import ExperimentConfig
from recmoe.runs.train import RunResult


@pytest.fixture(scope="session")
def finished(
    train: Callable[..., RunResult],
    make_experiment: Callable[..., ExperimentConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[ExperimentConfig, RunResult]:
    """A finished run that no test changes, and its config."""
    folder = tmp_path_factory.mktemp("finished")
    config = make_experiment(folder)
    return config, train(config, folder / "run")

"""Small runs in this process."""

from collections.abc import Callable

import pytest

from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
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


@pytest.fixture(scope="session")
def trained(
    train: Callable[..., RunResult],
    make_experiment: Callable[..., ExperimentConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., ModelBundle]:
    """The bundle of a short run of an architecture, one epoch unless overrides say otherwise."""

    def bundle(architecture: str, *overrides: str) -> ModelBundle:
        folder = tmp_path_factory.mktemp("trained")
        config = make_experiment(folder, f"model.architecture={architecture}", *overrides)
        return ModelBundle.load(train(config, folder / "run").folder.bundle)

    return bundle

"""Every config that comes with the project loads."""

from pathlib import Path
from typing import get_args

import pytest

import recmoe
from recmoe.architectures import ArchitectureConfig
from recmoe.experiment import experiment_from_json, load_experiment

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
TEMPLATES = sorted((Path(recmoe.__file__).parent / "data").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_loads_and_survives_json(path: Path) -> None:
    config = load_experiment(path)

    assert experiment_from_json(config.model_dump_json()) == config
    assert config.training.early_stopping is not None


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_template_of_a_log_loads_and_reads_the_files_beside_it(path: Path) -> None:
    config = load_experiment(path)

    assert config.data.train == (f"{path.parent}/train.parquet",)
    assert config.data.validation
    assert config.data.test


def test_configs_have_names_of_their_own() -> None:
    paths = [path for path in CONFIGS if path.stem != "base"]

    names = [load_experiment(path).name for path in paths]

    assert len(set(names)) == len(names) == len(paths) > 0
    assert [name.removeprefix("synthetic-") for name in names] == [path.stem for path in paths]


def test_there_is_a_config_for_every_architecture() -> None:
    kinds = {load_experiment(path).model.architecture.kind for path in CONFIGS}

    assert kinds == {kind.model_fields["kind"].default for kind in get_args(get_args(ArchitectureConfig)[0])}
    assert {path.stem for path in TEMPLATES} == {"synthetic", "census", "hillstrom", "trivago"}

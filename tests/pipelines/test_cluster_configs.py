"""The cluster files are what Ray's launcher reads."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "cluster").glob("*.yaml"))


def prepared(path: Path) -> dict[str, Any]:
    """As ``ray up`` prepares it: with the provider's defaults."""
    from ray.autoscaler._private.util import prepare_config

    config: dict[str, Any] = prepare_config(yaml.safe_load(path.read_text()))
    return config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_cluster_file_is_valid_for_ray(path: Path) -> None:
    from ray.autoscaler._private.util import validate_config

    config = prepared(path)

    validate_config(config)
    assert config["head_node_type"] in config["available_node_types"]
    assert set(yaml.safe_load(path.read_text())) <= set(config) | {"min_workers"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_commands_in_cluster_files_are_commands_of_recmoe(path: Path) -> None:
    from typer.main import get_command
    from typer.testing import CliRunner

    from recmoe.cli import app

    commands = re.findall(r"recmoe (prepare|train) .* --run-dir /shared/\S+ --workers (\S+)", path.read_text())

    assert commands
    for command, _ in commands:
        assert command in get_command(app).commands  # type: ignore[attr-defined]
        assert "--workers" in CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output


def test_there_is_a_cluster_of_machines_and_one_of_a_cloud() -> None:
    assert [path.stem for path in CONFIGS] == ["aws", "on_premise"]

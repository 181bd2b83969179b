"""A registry in a SQLite file."""

from pathlib import Path

import pytest

from recmoe.registry.registry import Registry


@pytest.fixture
def registry(mlflow_folder: Path) -> Registry:
    return Registry.connect(folder=mlflow_folder)

"""A registry behind a server: versions travel there and back."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from recmoe.errors import RegistryError
from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker
from recmoe.registry.registry import Registry
from recmoe.tracking import TrackingConfig
from tests.mlflow_server import mlflow_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
]


@pytest.fixture
def server(mlflow_folder: Path, tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with mlflow_server(mlflow_folder / "mlflow.db", tmp_path / "artifacts") as (url, process):
        yield url, process


def test_version_travels_through_a_server_and_its_end_is_named(
    server: tuple[str, subprocess.Popen[bytes]], bundle_path: Path, bundle: ModelBundle, tmp_path: Path
) -> None:
    url, process = server
    tracker = TrackingConfig(uri=url, system_metrics=False).build(run_name="run", folder=tmp_path)
    tracker.log_metrics({"train/loss": 1.0}, step=1)
    tracker.finish()
    registry = Registry.connect(url, folder=tmp_path)

    registry.register(bundle_path, run_id=tracker.run_id)
    registry.promote("shop", "1")
    first = registry.resolve("models:/shop@champion", cache=tmp_path / "cache")
    again = registry.resolve("models:/shop@champion", cache=tmp_path / "cache")
    process.terminate()
    process.wait(timeout=30)

    assert first.path == again.path
    assert first.path.is_relative_to(tmp_path / "cache")
    assert Ranker.load(first.path).info.digest == bundle.digest
    with pytest.raises(RegistryError, match=f"MLflow at {url} does not answer"):
        Registry.connect(url, folder=tmp_path)

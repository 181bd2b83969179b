"""A registry behind a server: versions travel there and back."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from recmoe.errors import RegistryError
from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker
from recmoe.registry.registry import Registry
from recmoe.tracking import TrackingConfig

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
]


@pytest.fixture
def server(mlflow_folder: Path, tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = (
        f"-m mlflow server --host 127.0.0.1 --port {port} --workers 1 "
        f"--backend-store-uri sqlite:///{mlflow_folder}/mlflow.db --artifacts-destination {tmp_path}/artifacts"
    )
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    process = subprocess.Popen([sys.executable, *command.split()], env={**os.environ, **quiet})
    url = f"http://127.0.0.1:{port}"
    deadline_s = time.monotonic() + 120
    while time.monotonic() < deadline_s:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
            break
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
    yield url, process
    process.terminate()
    process.wait(timeout=30)


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

"""A registry as machines have it: in a place that cannot be written to, under an account that nobody knows."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recmoe.registry.registry import Registry

pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

STRANGER = 54321
"""A user id that the machine has no entry for."""


def as_stranger(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code as a user without an entry and without HOME, who owns nothing."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=folder,
        env=environment,
        user=STRANGER,
        group=STRANGER,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=300,
    )


def opened(folder: Path) -> None:
    """Let everybody look into a folder of this test."""
    while folder.stat().st_mode & 0o5 != 0o5:
        folder.chmod(0o755)
        folder = folder.parent


def test_registry_that_cannot_be_written_to_is_read(registry: Registry, bundle_path: Path, mlflow_folder: Path) -> None:
    registry.register(bundle_path)
    registry.promote("shop", "1")
    (mlflow_folder / "mlflow.db.lock").unlink()
    opened(mlflow_folder)

    run = as_stranger(
        "from pathlib import Path; from recmoe.runs.source import load_ranker; "
        "print(load_ranker('models:/shop@champion', runs=Path('.')).info.version)",
        mlflow_folder,
    )
    moved = as_stranger(
        "import sys; from recmoe.cli import main; "
        f"sys.argv = ['recmoe', 'promote', 'shop', '1', '--registry', 'sqlite:///{mlflow_folder}/mlflow.db']; main()",
        mlflow_folder,
    )

    assert run.stdout == "1\n", run.stderr
    assert moved.returncode == 1
    assert moved.stderr.startswith("error: MLflow at sqlite:///")
    assert "readonly database" in moved.stderr


def test_stranger_without_a_home_promotes_and_trains(
    registry: Registry, bundle_path: Path, mlflow_folder: Path
) -> None:
    registry.register(bundle_path)
    opened(mlflow_folder)
    for path in (mlflow_folder, *mlflow_folder.rglob("*")):
        os.chown(path, STRANGER, STRANGER)

    run = as_stranger(
        "from pathlib import Path; from recmoe.registry.registry import Registry; "
        "from recmoe.tracking import TrackingConfig\n"
        "print(Registry.connect(folder=Path('.')).promote('shop', '1').by)\n"
        "tracker = TrackingConfig().build(run_name='first', folder=Path('.')); tracker.finish(); print(tracker.run_id)",
        mlflow_folder,
    )

    assert run.returncode == 0, run.stderr
    by, run_id = run.stdout.split("\n")[:2]
    assert by == f"uid {STRANGER}"
    assert registry._client.get_run(run_id).info.status == "FINISHED"

"""A registry as machines have it: in a place that cannot be written to, under an account that nobody knows."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from recmoe.config import dump_config
from recmoe.experiment import ExperimentConfig
from recmoe.registry.registry import Registry

pytestmark = [
    pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="only root may become another user"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

# What is installed may lie in root's own folder: everything may be read, nothing written that belongs to others.
READS = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
STRANGER = 54321
"""A user id that the machine has no entry for."""


def as_stranger(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code as a user without an entry and without HOME, who owns nothing."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [*f"setpriv --reuid {STRANGER} --regid {STRANGER} --clear-groups".split(), *READS, sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_registry_that_cannot_be_written_to_is_read(registry: Registry, bundle_path: Path, mlflow_folder: Path) -> None:
    registry.register(bundle_path)
    registry.promote("shop", "1")
    (mlflow_folder / "mlflow.db.lock").unlink()

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


def test_stranger_without_a_home_trains_registers_and_promotes(
    mlflow_folder: Path, make_experiment: Callable[..., ExperimentConfig]
) -> None:
    config = make_experiment(mlflow_folder, "training.max_steps=3", "tracking={kind: mlflow}")
    (mlflow_folder / "config.json").write_text(json.dumps(dump_config(config)), encoding="utf-8")
    for path in (mlflow_folder, *mlflow_folder.rglob("*")):
        os.chown(path, STRANGER, STRANGER)

    run = as_stranger(
        "from pathlib import Path; from recmoe.experiment import experiment_from_json; "
        "from recmoe.registry.registry import Registry; from recmoe.runs.train import train_run\n"
        "config = experiment_from_json(Path('config.json').read_text())\n"
        f"folder = Path({str(mlflow_folder)!r})\n"
        "result = train_run(config, folder / 'first', resume=False, is_quiet=True)\n"
        "registry = Registry.connect(f'sqlite:///{folder}/mlflow.db', folder=folder)\n"
        "registry.register(result.folder.bundle)\n"
        "print(result.folder.state['status'], registry.promote('shop', '1').by)",
        mlflow_folder,
    )

    assert run.returncode == 0, run.stderr
    assert run.stdout == f"finished uid {STRANGER}\n"

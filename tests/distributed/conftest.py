"""Jobs and scripts in several real processes over gloo."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from recmoe.experiment import ExperimentConfig
from recmoe.runs.folder import RunFolder
from recmoe.runs.train import Launch

SCRIPT = Path(__file__).with_name("job_worker.py")


@pytest.fixture(scope="session")
def in_two_processes() -> Launch:
    """Launches the job of a prepared run folder."""

    def launch(_: ExperimentConfig, folder: RunFolder) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        both = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        ranks = [{**both, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
        _run_side_by_side([[str(SCRIPT), str(folder.root)]] * 2, environments=ranks)

    return launch


@pytest.fixture(scope="module")
def worker(request: pytest.FixtureRequest) -> ModuleType:
    """The script that ``SCRIPT`` of the test module names, for what it shares with the tests."""
    spec = importlib.util.spec_from_file_location(request.module.SCRIPT.stem, request.module.SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run_processes(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Runs that script with a scenario, a folder and values, in two processes or more; all must end well."""

    def run(scenario: str, root: Path, values: dict[str, Any], *, world_size: int = 2) -> None:
        of_all = [str(world_size), str(root), json.dumps(values)]
        _run_side_by_side(
            [[str(request.module.SCRIPT), scenario, str(rank), *of_all] for rank in range(world_size)],
            environments=[{}] * world_size,
        )

    return run


def _run_side_by_side(scripts: Sequence[Sequence[str]], *, environments: Sequence[Mapping[str, str]]) -> None:
    """Start Python on each of some scripts with arguments, and wait; all must end well."""
    processes = [
        subprocess.Popen(
            [sys.executable, *script],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for script, environment in zip(scripts, environments, strict=True)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(outputs)

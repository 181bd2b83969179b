"""A job in two real processes over gloo."""

import os
import socket
import subprocess
import sys
from pathlib import Path

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
        processes = [
            subprocess.Popen(
                [sys.executable, str(SCRIPT), str(folder.root)],
                env={**os.environ, **both, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(2)
        ]
        try:
            outputs = [process.communicate(timeout=240)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)

    return launch

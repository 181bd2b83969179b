"""MLflow behind a port of this machine, which artifacts travel through."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def mlflow_server(database: Path, artifacts: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Its URL and its process, which is ended at the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = (
        f"-m mlflow server --host 127.0.0.1 --port {port} --workers 1 "
        f"--backend-store-uri sqlite:///{database} --artifacts-destination {artifacts}"
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
    try:
        yield url, process
    finally:
        process.terminate()
        process.wait(timeout=30)

"""run_measured(): a participant in a process of its own, and the memory of the helpers it starts."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from recmoe.errors import TrainingError

LOOK_EVERY_S = 1.0
LAST_LINES = 5


def run_measured(
    command: Sequence[str], *, output: Path, env: Mapping[str, str], timeout_s: float | None = None
) -> float:
    """Run a command to its end.

    Args:
        env: its whole environment.

    Returns:
        most memory that its child processes (loaders) had together, in GiB; pages they share count once.

    Raises:
        TrainingError: it failed or took too long; the message ends with its last lines.
    """
    helpers_bytes = 0
    started_s = time.monotonic()
    with output.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=env, start_new_session=True)
        try:
            while process.poll() is None:
                helpers_bytes = max(helpers_bytes, _helpers_bytes(process.pid))
                if timeout_s is not None and time.monotonic() - started_s > timeout_s:
                    raise TrainingError(f"{' '.join(command)} was stopped after {timeout_s:.0f} s; see {output}")
                with suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK_EVERY_S)
        finally:
            # Loaders outlive a participant that was stopped.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode:
        lines = output.read_text(errors="replace", encoding="utf-8").strip().splitlines()[-LAST_LINES:]
        raise TrainingError(f"{' '.join(command)} failed, see {output}: " + " / ".join(lines))
    return helpers_bytes / 2**30


def _helpers_bytes(pid: int) -> int:
    """Proportional memory of all descendants; only looked at where there are any, for it stops them for a moment."""
    total = 0
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += child.memory_full_info().pss
    return total

"""How a stop travels from the process that was started by hand to the workers."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from pipelines.room import Growth, Room
from pipelines.train import _fit, _follow
from recmoe.training.stop import StopSignal

NO_GROWTH = Growth(Room(smallest=1, largest=1, needs={}), 1)


class Job:
    """Ends when its worker is told to stop, as a Ray trainer does; ``fit`` may also fail."""

    def __init__(self, stop_file: Path, error: Exception | None = None) -> None:
        self.stop_file = stop_file
        self.error = error
        self.was_stopped = False

    def fit(self) -> None:
        if self.error is not None:
            raise self.error
        stop = StopSignal()
        threading.Thread(target=_follow, args=(self.stop_file, stop), daemon=True).start()
        deadline_s = time.monotonic() + 20
        while not stop.is_requested and time.monotonic() < deadline_s:
            time.sleep(0.01)
        self.was_stopped = stop.is_requested


def test_ctrl_c_reaches_a_worker_and_the_job_ends_by_itself(tmp_path: Path) -> None:
    job = Job(tmp_path / "stop")
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()

    with StopSignal() as stop:
        _fit(job, stop, tmp_path / "stop", NO_GROWTH)

    assert job.was_stopped


def test_error_of_a_job_is_raised_where_it_is_waited_for(tmp_path: Path) -> None:
    job = Job(tmp_path / "stop", error=ValueError("lost"))

    with pytest.raises(ValueError, match=r"^lost$"):
        _fit(job, StopSignal(), tmp_path / "stop", NO_GROWTH)

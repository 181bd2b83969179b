"""One process at a time works on a run."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from recmoe.errors import TrainingError
from recmoe.runs.claim import OWNER, claimed

HOLD = """
import sys
from pathlib import Path
from recmoe.runs.claim import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(root: Path) -> subprocess.Popen[str]:
    """Another process that holds a folder until its stdin ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def written(root: Path, **changes: object) -> None:
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "at": "2026-01-01T00:00:00+00:00"}
    (root / OWNER).write_text(json.dumps({**owner, **changes}), encoding="utf-8")


def test_folder_that_another_process_works_on_is_refused_until_that_is_dead(tmp_path: Path) -> None:
    other = holder(tmp_path)

    with (
        pytest.raises(
            TrainingError,
            match=rf"process {other.pid} on host {socket.gethostname()} works on it since 20.*; wait for its end",
        ),
        claimed(tmp_path),
    ):
        pass
    other.kill()
    other.communicate()
    left = (tmp_path / OWNER).exists()
    with claimed(tmp_path):
        mine = json.loads((tmp_path / OWNER).read_text(encoding="utf-8"))

    assert left
    assert mine["pid"] == os.getpid()
    assert not (tmp_path / OWNER).exists()


def test_same_process_cannot_work_on_it_twice(tmp_path: Path) -> None:
    with claimed(tmp_path), pytest.raises(TrainingError, match=f"process {os.getpid()} on host"), claimed(tmp_path):
        pass


def test_owner_on_another_machine_counts_until_its_file_is_removed(tmp_path: Path) -> None:
    written(tmp_path, host="elsewhere", pid=7)

    with (
        pytest.raises(TrainingError, match=r"process 7 on host elsewhere works .*; .*If it is gone, remove .*\.owner"),
        claimed(tmp_path),
    ):
        pass
    (tmp_path / OWNER).unlink()
    with claimed(tmp_path):
        pass


def test_process_whose_lock_did_not_reach_here_counts_while_it_lives(tmp_path: Path) -> None:
    import psutil

    parent = psutil.Process(os.getppid())
    written(tmp_path, pid=parent.pid, process_began_s=parent.create_time())

    with pytest.raises(TrainingError, match=f"process {parent.pid} on host"), claimed(tmp_path):
        pass
    # The number went to another process.
    written(tmp_path, pid=parent.pid, process_began_s=1.0)
    with claimed(tmp_path):
        pass


@pytest.mark.parametrize("text", ["", "[]", '{"pid": 1}'])
def test_half_written_owner_does_not_count(tmp_path: Path, text: str) -> None:
    (tmp_path / OWNER).write_text(text, encoding="utf-8")

    with claimed(tmp_path):
        pass


def test_lock_without_an_owner_is_refused_in_words(tmp_path: Path) -> None:
    with claimed(tmp_path):
        (tmp_path / OWNER).unlink()

        with pytest.raises(TrainingError, match="another process works on it; wait for its end"), claimed(tmp_path):
            pass

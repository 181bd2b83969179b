"""Files that appear whole under their folder's name, or not at all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recmoe.errors import DataError
from recmoe.onboarding.new_folder import new_folder


def write(target: Path, names: list[str], error: BaseException | None = None) -> None:
    with new_folder(target) as folder:
        for name in names:
            (folder / name).write_text("1")
        if error is not None:
            raise error


def test_files_appear_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "shop"

    with new_folder(target) as folder:
        (folder / "a").write_text("1")
        was_there = target.exists()

    assert not was_there
    assert (target / "a").read_text() == "1"
    assert [path.name for path in target.parent.iterdir()] == ["shop"]


def test_folder_that_is_there_keeps_its_files(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")

    with new_folder(tmp_path) as folder:
        (folder / "a").write_text("1")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "mine"]


def test_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("mine")

    with pytest.raises(DataError, match=r"b exists already; remove it or choose another folder"):
        write(tmp_path, ["a", "b"])

    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert (tmp_path / "b").read_text() == "mine"


def test_target_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "shop").write_text("")

    with pytest.raises(DataError, match=r"shop is a file; choose a folder"), new_folder(tmp_path / "shop"):
        pass


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_after_an_error(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        write(tmp_path / "shop", ["a"], error)

    assert list(tmp_path.iterdir()) == []


WRITER = """
import sys, time
from pathlib import Path
from recmoe.onboarding.new_folder import new_folder
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "a").write_text("1")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_leftover_of_a_killed_process_is_removed_by_the_next_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    target = tmp_path / "shop"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE) for _ in range(2)]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
    os.kill(writers[0].pid, signal.SIGKILL)
    writers[0].wait()

    try:
        with new_folder(target) as folder:
            num_unfinished = len([path for path in tmp_path.iterdir() if path != folder])
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()

    assert num_unfinished == 1
    assert target.is_dir()

"""new_folder: files that appear together under their folder's name, or leave nothing behind."""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recmoe.errors import DataError


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A hidden folder that becomes the target, or whose files move there, when the block ends without an error.

    What a killed process left is removed by the next one for the same target: a living one holds a lock.

    Raises:
        DataError: the target is a file, or holds a file of a name that was written.
    """
    target = target.resolve()
    if target.exists() and not target.is_dir():
        raise DataError(f"{target} is a file; choose a folder")
    parent = target if target.exists() else target.parent
    parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}.unfinished-"
    _remove_leftovers(parent, prefix)
    # Named before it is made: a signal may end the process right after that.
    folder = parent / f"{prefix}{secrets.token_hex(8)}"
    lock: int | None = None
    try:
        folder.mkdir(mode=0o700)
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
        _move(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _remove_leftovers(parent: Path, prefix: str) -> None:
    for folder in [path for path in parent.iterdir() if path.name.startswith(prefix)]:
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            # Another process is writing it.
            continue
        finally:
            os.close(lock)


def _move(folder: Path, target: Path) -> None:
    # The rights that the user's umask gives; a temporary folder has none for others.
    umask = os.umask(0)
    os.umask(umask)
    if not target.exists():
        folder.chmod(0o777 & ~umask)
        os.rename(folder, target)
        return
    names = sorted(path.name for path in folder.iterdir())
    for name in names:
        if (target / name).exists():
            raise DataError(f"{target / name} exists already; remove it or choose another folder")
    moved: list[Path] = []
    try:
        for name in names:
            os.rename(folder / name, target / name)
            moved.append(target / name)
    except OSError:
        for path in moved:
            path.unlink(missing_ok=True)
        raise

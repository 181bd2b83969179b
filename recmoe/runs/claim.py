"""claimed(): one process at a time works in a folder; who it is stands in ``.owner.json``."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from recmoe.errors import TrainingError

OWNER = ".owner.json"
LOCK = ".owner.lock"
CLAIM_FILES = (OWNER, LOCK)
"""What a claim leaves in a folder."""


@contextmanager
def claimed(root: Path) -> Iterator[None]:
    """Hold a folder, made if it is missing, while this process writes into it.

    The system's lock goes with the process that holds it, however that ends. Where folders are shared by machines, it
    may not reach the others: there the owner's file counts, until it is removed.

    Raises:
        TrainingError: another process works in it; its number, host and start are named.
    """
    root.mkdir(parents=True, exist_ok=True)
    owner = root / OWNER
    lock = FileLock(root / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise TrainingError(_refusal(root, _read(owner))) from None
    try:
        other = _read(owner)
        if other is not None and _may_live(other):
            raise TrainingError(_refusal(root, other))
        owner.write_text(json.dumps(_myself()), encoding="utf-8")
        try:
            yield
        finally:
            owner.unlink(missing_ok=True)
    finally:
        lock.release()


def _myself() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "process_began_s": psutil.Process().create_time(),
    }


def _read(owner: Path) -> dict[str, Any] | None:
    """Who is written down; None for a file that is not there, or that was left half."""
    try:
        values: Any = json.loads(owner.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) and {"pid", "host", "at"} <= set(values) else None


def _may_live(owner: dict[str, Any]) -> bool:
    """Whether an owner, whose lock could be taken, may be at work all the same."""
    if owner["host"] != socket.gethostname():
        return True
    if owner["pid"] == os.getpid():
        return False
    try:
        # The number may belong to another process by now.
        return bool(psutil.Process(owner["pid"]).create_time() == owner.get("process_began_s"))
    except psutil.Error:
        return False


def _refusal(root: Path, owner: dict[str, Any] | None) -> str:
    if owner is None:
        return f"{root}: another process works on it; wait for its end, or stop it"
    who = f"{root}: process {owner['pid']} on host {owner['host']} works on it since {owner['at']}"
    if owner["host"] == socket.gethostname():
        return f"{who}; wait for its end, or stop it"
    return f"{who}; wait for its end, or stop it there. If it is gone, remove {root / OWNER} and go on"

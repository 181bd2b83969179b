"""Checkpoint folders: written under a temporary name, committed by a manifest with hashes, never half."""

import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recmoe.errors import CheckpointError

MANIFEST = "manifest.json"
FORMAT = 3
LOG = logging.getLogger(__name__)


def step_folder(root: Path, step: int) -> Path:
    """Where the checkpoint of a step lives: ``step-00001000``."""
    return root / f"step-{step:08d}"


def step_of(folder: Path) -> int:
    """The inverse of ``step_folder``."""
    return int(folder.name.removeprefix("step-"))


def prepare(folder: Path) -> Path:
    """An empty temporary folder beside ``folder``; what killed saves left there is removed.

    Its name is used once: a process that outlives its job must not write into what the next one commits.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in uncommitted(folder.parent):
        shutil.rmtree(left, ignore_errors=True)
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    part.mkdir()
    return part


def uncommitted(root: Path) -> list[Path]:
    """What saves that were killed, or are under way, have left in a folder of checkpoints."""
    return sorted(root.glob(".step-*"))


def fingerprint_files(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Size in bytes and SHA-256 of some files of a folder."""
    return {name: {"size": (folder / name).stat().st_size, "sha256": _sha256(folder / name)} for name in names}


def file_names(folder: Path) -> list[str]:
    """Every file below a folder but the manifest, sorted."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(name for path in paths if (name := path.relative_to(folder).as_posix()) != MANIFEST)


def commit(part: Path, folder: Path, *, files: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any]) -> None:
    """Write the manifest, then give the folder its name in one move; a folder of that name is replaced."""
    body = {"format": FORMAT, "about": dict(about), "files": dict(files)}
    write_synced(part / MANIFEST, json.dumps({**body, "sha256": _digest(body)}, indent=2))
    for path in (part, *(path for path in part.rglob("*") if path.is_dir())):
        _sync(path)
    old = folder.with_name(f".{folder.name}.old")
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a committed checkpoint.

    Raises:
        CheckpointError: the folder is missing, not committed, of another format, or its manifest is damaged.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise CheckpointError(f"there is no checkpoint {folder}; `ls {folder.parent}` shows those that there are")
    if not path.exists():
        raise CheckpointError(f"{folder} was never committed (no {MANIFEST}); use an older checkpoint, and remove it")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        stored = manifest.pop("sha256")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}; use an older checkpoint, and remove this one") from error
    if stored != _digest(manifest):
        raise CheckpointError(f"{path} is damaged: its hash differs; use an older checkpoint, and remove this one")
    if manifest["format"] != FORMAT:
        raise CheckpointError(
            f"{folder} has format {manifest['format']}, this version reads {FORMAT}; "
            "end the run with the version that began it, or start anew in another --run-dir"
        )
    return manifest


def verify(folder: Path, *, part: int = 0, num_parts: int = 1, with_hashes: bool = True) -> dict[str, Any]:
    """Check the files of a committed checkpoint against its manifest, or every ``num_parts``-th of them.

    Args:
        with_hashes: read the files, and not their sizes alone.

    Returns:
        The manifest.

    Raises:
        CheckpointError: as ``read_manifest``, or a file is missing or damaged; the message names it.
    """
    manifest = read_manifest(folder)
    for name in sorted(manifest["files"])[part::num_parts]:
        path, expected = folder / name, manifest["files"][name]
        if not path.exists():
            raise CheckpointError(f"{path} is missing; use an older checkpoint, and remove this one")
        size = path.stat().st_size
        if size != expected["size"]:
            raise CheckpointError(
                f"{path} is damaged: {size:,} bytes instead of {expected['size']:,}; "
                "use an older checkpoint, and remove this one"
            )
        if with_hashes and _sha256(path) != expected["sha256"]:
            raise CheckpointError(f"{path} is damaged: its hash differs; use an older checkpoint, and remove this one")
    return manifest


def newest_good(root: Path) -> Path | None:
    """The newest checkpoint that is committed and undamaged; the others are skipped with a logged warning."""
    for folder in committed(root):
        try:
            verify(folder)
        except CheckpointError as error:
            LOG.warning("skipped: %s", error)
        else:
            return folder
    return None


def committed(root: Path) -> list[Path]:
    """Checkpoints of a run, the newest first; their files are not looked at."""
    folders = (path for path in root.glob("step-*") if path.name.removeprefix("step-").isdigit())
    return sorted(folders, key=step_of, reverse=True)


def prune(root: Path, *, step: int, keep: int) -> None:
    """Of the checkpoints up to a step, remove all but the ``keep`` newest and the best, the newest saved as such.

    Later steps are damaged ones that a resumed run has skipped and will write anew.
    """
    folders = [folder for folder in committed(root) if step_of(folder) <= step]
    best = next((folder for folder in folders if _is_best(folder)), None)
    for folder in folders[keep:]:
        if folder != best:
            # Out of sight first: a half-removed checkpoint must not look like a damaged one.
            old = folder.rename(folder.with_name(f".{folder.name}.old"))
            shutil.rmtree(old, ignore_errors=True)


def _is_best(folder: Path) -> bool:
    try:
        return bool(read_manifest(folder)["about"]["is_best"])
    except CheckpointError:
        return False


def write_synced(path: Path, text: str) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()

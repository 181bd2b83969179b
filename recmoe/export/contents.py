"""What a bundle's folder may hold: files of these names, which hold data alone; no code, no links, nothing else."""

import os
import re
import stat
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from recmoe.errors import BundleError
from recmoe.features.encoder_state import ENCODER_FILE

MANIFEST = "manifest.json"
CONFIG = "config.json"
DENSE = "dense.safetensors"
INDEX = "tables.json"
REPORT = "report.json"
LINEAGE = "lineage.json"
REPLAY_ROWS = "replay.parquet"
REPLAY_SCORES = "replay_scores.parquet"
REPLAY_ENCODED = "replay_encoded.safetensors"
ENCODER = "encoder"
TABLES = "tables"

TABLE_FILE = re.compile(r"[0-9a-f]{64}\.safetensors")
"""Name of a file in ``tables``: the sha256 of what was written."""

REQUIRED = (CONFIG, DENSE, INDEX, REPLAY_ROWS, REPLAY_SCORES, REPLAY_ENCODED)
"""Files that every bundle has beside its manifest and its encoder."""

_AT_TOP = frozenset({*REQUIRED, REPORT, LINEAGE})
_IN_FOLDERS = {ENCODER: ENCODER_FILE, TABLES: TABLE_FILE}
FOLDERS = frozenset(_IN_FOLDERS)
"""Folders inside a bundle's folder."""

_SHOWN = 120
"""Characters of a strange name that a message shows."""


def name_fault(name: str) -> str | None:
    """Why a bundle has no file of a name; None where it may have one.

    Args:
        name: path relative to the bundle, with slashes.
    """
    folder, slash, file = name.rpartition("/")
    if slash and folder in _IN_FOLDERS and _IN_FOLDERS[folder].fullmatch(file):
        return None
    if name in _AT_TOP:
        return None
    path = PurePosixPath(name)
    if "\0" in name or "\\" in name:
        return "such a path is no name of a file in a bundle"
    if path.is_absolute() or ".." in path.parts:
        return "it leaves the folder"
    return "a bundle has no such file: it holds data alone, and loading it runs no code"


def shown(name: str) -> str:
    """A name as a message shows it, whatever it holds."""
    return repr(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…")


def file_sizes(directory: Path, *, folders: Collection[str] = FOLDERS) -> dict[str, int]:
    """Bytes of every file in a bundle's folder, by its path relative to the bundle; no link is followed.

    Args:
        folders: that may be in it, by their paths.

    Raises:
        BundleError: something in the folder is no plain file, or another folder.
    """
    return dict(sorted(_sizes_in(directory, "", folders)))


def _sizes_in(folder: Path, prefix: str, folders: Collection[str]) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            path, mode = Path(entry.path), entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode) and prefix + entry.name in folders:
                found += _sizes_in(path, f"{prefix}{entry.name}/", folders)
            elif stat.S_ISREG(mode):
                found.append((prefix + entry.name, entry.stat(follow_symlinks=False).st_size))
            else:
                raise BundleError(f"{path} is {_kind(mode)}; a bundle holds files alone: copy or export it again")
    return found


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "a folder that no bundle has" if stat.S_ISDIR(mode) else "no file"

"""Copies of checkpoints: whole tables for other programs, and files laid out for another number of workers."""

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from recmoe.errors import CheckpointError
from recmoe.training import checkpoint_folder
from recmoe.training.checkpoint_folder import step_folder, step_of, write_synced
from recmoe.training.pieces import Box, spread
from recmoe.training.snapshot import TENSORS
from recmoe.training.stored_tensors import INDEX, StoredTensors, index_text, merge
from recmoe.training.tensor_files import MAX_FILE_BYTES, cut, write_boxes, write_file

DENSE_FILE = "dense.safetensors"


def unshard(checkpoint: Path, target: Path, *, max_file_bytes: int = MAX_FILE_BYTES) -> dict[str, Any]:
    """Write the weights of a checkpoint as whole tables, a block of rows at a time::

        index.json                      {"step": …, "dense": "dense.safetensors", "tables":
                                            {"user": {"shape": [1000, 16], "files": ["tables/user.safetensors"]}, …}}
        dense.safetensors               every other parameter, under its name
        tables/user.safetensors         key ``weight``; beyond the limit user-00000, user-00001 … in row order

    Returns:
        The index.

    Raises:
        CheckpointError: the checkpoint is damaged, or the target is there already.
    """
    if target.exists():
        raise CheckpointError(f"{target} is there already; choose another folder")
    checkpoint_folder.verify(checkpoint)
    with StoredTensors(checkpoint / TENSORS) as stored, _made(target) as part:
        (part / "tables").mkdir()
        tables: dict[str, Any] = {}
        for name, table in _named(stored, "tables/").items():
            pieces = list(cut(table, max_file_bytes))
            stem = quote(name, safe="")
            names = [f"tables/{stem}{f'-{number:05d}' if len(pieces) > 1 else ''}" for number in range(len(pieces))]
            files = [f"{one}.safetensors" for one in names]
            for file, piece in zip(files, pieces, strict=True):
                write_file(part / file, [("weight", piece)])
            tables[name] = {"shape": list(table.shape), "files": files}
        write_file(part / DENSE_FILE, list(_named(stored, "dense/").items()))
        index = {"step": step_of(checkpoint), "dense": DENSE_FILE, "tables": tables}
        write_synced(part / INDEX, json.dumps(index, indent=2))
    return index


def reshard(checkpoint: Path, root: Path, *, num_workers: int, max_file_bytes: int = MAX_FILE_BYTES) -> Path:
    """Write a checkpoint anew, its rows spread evenly over the files of so many workers; its content stays.

    Returns:
        The checkpoint, below ``root``: ``step-…``, committed like any other.

    Raises:
        CheckpointError: the checkpoint is damaged, or root holds one of this step.
    """
    folder = step_folder(root, step_of(checkpoint))
    if folder.exists():
        raise CheckpointError(f"{folder} is there already; choose another folder")
    about = checkpoint_folder.verify(checkpoint)["about"]
    part = checkpoint_folder.prepare(folder)
    try:
        files: dict[str, Any] = {}
        with StoredTensors(checkpoint / TENSORS) as stored:
            boxes = [stored.box(name) for name in stored.tensors]
            written = [
                write_boxes(
                    part / TENSORS,
                    list(spread(boxes, rank=rank, world_size=num_workers)),
                    prefix=str(rank),
                    max_file_bytes=max_file_bytes,
                )
                for rank in range(num_workers)
            ]
        write_synced(part / TENSORS / INDEX, index_text(merge(one.tensors for one in written)))
        small = [f"{TENSORS}/{INDEX}"]
        for path in sorted(checkpoint.glob("*.json")):
            if path.name != checkpoint_folder.MANIFEST:
                write_synced(part / path.name, path.read_text(encoding="utf-8"))
                small.append(path.name)
        for one in written:
            files |= {f"{TENSORS}/{name}": entry for name, entry in one.files.items()}
        files |= checkpoint_folder.fingerprint_files(part, small)
        checkpoint_folder.commit(part, folder, files=files, about={**about, "laid_out_for": num_workers})
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return folder


@contextmanager
def _made(target: Path) -> Iterator[Path]:
    """A folder that gets its name when it is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    part.mkdir()
    try:
        yield part
        part.rename(target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _named(stored: StoredTensors, prefix: str) -> dict[str, Box]:
    return {name.removeprefix(prefix): stored.box(name) for name in stored.tensors if name.startswith(prefix)}

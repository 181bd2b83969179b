"""Snapshot: what a process has to save of one step, and how all of them make a checkpoint of it."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from recmoe.embeddings.logical import dense_state, find_tables
from recmoe.embeddings.placement import TableOptimizer
from recmoe.errors import CheckpointError
from recmoe.training import checkpoint_folder
from recmoe.training.dense_optimizer_state import dense_optimizer_state
from recmoe.training.pieces import Piece, pieces_to_save
from recmoe.training.rng import rng_state
from recmoe.training.stored_tensors import INDEX, index_text, merge
from recmoe.training.tensor_files import write_boxes
from recmoe.training.together import gather, rank, together, world_size

TENSORS = "tensors"
STATE = "state.json"


@dataclass(frozen=True)
class Snapshot:
    """One process's part of a checkpoint."""

    pieces: Sequence[Piece]
    """Live values, or copies."""
    texts: Mapping[str, str]
    """Small files by name."""
    about: Mapping[str, Any]
    """For the manifest."""
    wait: Callable[[], None] = lambda: None
    """Returns when the values are complete."""


def take(
    *,
    model: nn.Module,
    dense_optimizer: torch.optim.Optimizer,
    table_optimizer: TableOptimizer,
    state: Mapping[str, Any],
    fingerprint: str,
    is_best: bool,
) -> Snapshot:
    """This process's part of everything as it is now; the values are live."""
    tensors = {
        **weights_of(model),
        **slots_of(table_optimizer),
        **prefixed("dense_optimizer", dense_optimizer_state(model, dense_optimizer)),
    }
    texts = {rng_file(rank()): json.dumps(rng_state())}
    if rank() == 0:
        texts[STATE] = json.dumps(dict(state))
    about = {
        "fingerprint": fingerprint,
        "world_size": world_size(),
        "table_optimizer": table_optimizer.rule.kind,
        "is_best": is_best,
        "saved_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return Snapshot(pieces_to_save(tensors, rank=rank(), world_size=world_size()), texts, about)


def write(directory: Path, snapshot: Snapshot, group: dist.ProcessGroup | None = None) -> None:
    """Commit a checkpoint to ``directory``, which is complete or does not exist. Collective over ``group``.

    Every rank writes and hashes its own files in one pass; the first one gathers their names and commits.

    Raises:
        CheckpointError: in every rank; nothing of the checkpoint is left, older ones stay.
    """
    part: Path | None = None
    try:
        part = gather(together(lambda: checkpoint_folder.prepare(directory) if rank() == 0 else None, group), group)[0]
        assert part is not None
        written = together(lambda: _write_share(part, snapshot), group)
        shares = gather(written, group)
        together(lambda: _commit(part, directory, snapshot, shares) if rank() == 0 else None, group)
    except CheckpointError as error:
        if rank() == 0 and part is not None:
            shutil.rmtree(part, ignore_errors=True)
        free_gb = shutil.disk_usage(next(path for path in directory.parents if path.exists())).free / 1e9
        raise CheckpointError(
            f"checkpoint {directory.name} could not be saved in {directory.parent} ({free_gb:.2f} GB free): {error}; "
            "older checkpoints are untouched: free some space or mend the cause, then resume"
        ) from error


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Live weights under the names of a checkpoint."""
    return {**prefixed("tables", find_tables(model)[1].table_weights()), **prefixed("dense", dense_state(model))}


def slots_of(table_optimizer: TableOptimizer) -> dict[str, Tensor]:
    """Live state of the tables' optimizer under the names of a checkpoint."""
    return {
        f"table_optimizer/{table}/{slot}": tensor
        for table, slots in table_optimizer.state().items()
        for slot, tensor in slots.items()
    }


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under ``prefix/name``."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def rng_file(rank: int) -> str:
    """Name of the file with a rank's random generators."""
    return f"rng-{rank}.json"


@dataclass(frozen=True)
class _Share:
    """What one rank has written."""

    tensors: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]


def _write_share(part: Path, snapshot: Snapshot) -> _Share:
    snapshot.wait()
    written = write_boxes(part / TENSORS, snapshot.pieces, prefix=str(rank()))
    for name, text in snapshot.texts.items():
        checkpoint_folder.write_synced(part / name, text)
    files = {f"{TENSORS}/{name}": entry for name, entry in written.files.items()}
    return _Share(written.tensors, {**files, **checkpoint_folder.fingerprint_files(part, snapshot.texts)})


def _commit(part: Path, directory: Path, snapshot: Snapshot, shares: Sequence[_Share]) -> None:
    index = f"{TENSORS}/{INDEX}"
    checkpoint_folder.write_synced(part / index, index_text(merge(share.tensors for share in shares)))
    files = {name: entry for share in shares for name, entry in share.files.items()}
    files |= checkpoint_folder.fingerprint_files(part, [index])
    checkpoint_folder.commit(part, directory, files=files, about=snapshot.about)

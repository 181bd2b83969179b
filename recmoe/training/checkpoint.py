"""Checkpoints: the logical model, its optimizers, progress and random state, for any number of processes.

A checkpoint is a folder::

    step-00001000/
        manifest.json       size and SHA-256 of every file, fingerprint of schema and config
        state.json          what the caller wants back: step, cursor, schedule, best value …
        rng-0.json …        random generators of every rank
        tensors/            torch.distributed.checkpoint: tables/<table>, table_optimizer/<table>/<slot>,
                            dense/<parameter>, dense_optimizer/<parameter>/<slot>

The names are those of the logical model, whole tables and not shards: another number of
processes, another sharding and the other back end find what they need.
"""

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as read_tensors
from torch.distributed.checkpoint.state_dict_saver import save as write_tensors

from recmoe.embeddings.logical import dense_state, find_tables
from recmoe.embeddings.placement import TableOptimizer
from recmoe.errors import CheckpointError
from recmoe.training import checkpoint_folder
from recmoe.training.checkpoint_folder import step_folder
from recmoe.training.dense_optimizer_state import (
    dense_optimizer_state,
    empty_dense_optimizer_state,
    set_dense_optimizer_state,
)
from recmoe.training.rng import restore_rng, rng_state
from recmoe.training.together import gather, is_alone, rank, together, world_size


class CheckpointStore:
    """The checkpoints of one run: the newest ones and the best.

    Args:
        root: the run's folder of checkpoints, on a disk that all ranks share.
        model, dense_optimizer, table_optimizer: what is saved and restored.
        fingerprint: of the schema, vocabularies and config that the weights belong to.
        keep: newest checkpoints kept; the best one is kept beside them.
    """

    def __init__(
        self,
        root: Path,
        *,
        model: nn.Module,
        dense_optimizer: torch.optim.Optimizer,
        table_optimizer: TableOptimizer,
        fingerprint: str,
        keep: int = 2,
    ) -> None:
        self._root = root
        self._model = model
        self._dense_optimizer = dense_optimizer
        self._table_optimizer = table_optimizer
        self._fingerprint = fingerprint
        self._keep = keep

    def save(self, step: int, state: Mapping[str, Any], *, is_best: bool = False) -> None:
        """Commit a checkpoint, then remove those no longer kept. Collective; see ``save``."""
        save(
            step_folder(self._root, step),
            model=self._model,
            dense_optimizer=self._dense_optimizer,
            table_optimizer=self._table_optimizer,
            state=state,
            fingerprint=self._fingerprint,
            is_best=is_best,
        )
        together(lambda: checkpoint_folder.prune(self._root, step=step, keep=self._keep) if rank() == 0 else None)

    def load(self, step: int) -> dict[str, Any]:
        """Put the run back to a step. Collective; see ``load``."""
        return load(
            step_folder(self._root, step),
            model=self._model,
            dense_optimizer=self._dense_optimizer,
            table_optimizer=self._table_optimizer,
            fingerprint=self._fingerprint,
        )

    def latest(self) -> int | None:
        """Step of the newest good checkpoint; damaged ones are skipped with a warning. Collective."""
        folder = latest(self._root)
        return None if folder is None else checkpoint_folder.step_of(folder)


def save(
    directory: Path,
    *,
    model: nn.Module,
    dense_optimizer: torch.optim.Optimizer,
    table_optimizer: TableOptimizer,
    state: Mapping[str, Any],
    fingerprint: str,
    is_best: bool = False,
) -> None:
    """Commit a checkpoint to ``directory``, which is complete or does not exist. Collective.

    Args:
        directory: ``checkpoint_folder.step_folder(root, step)``, on a disk that all ranks share.
        model: plain or sharded.
        state: JSON values that ``load`` gives back; rank 0's are kept.
        fingerprint: of the schema, vocabularies and config that the weights belong to.
        is_best: whether to keep it when newer ones push out the old.

    Raises:
        CheckpointError: in every rank; nothing of the checkpoint is left, older ones stay.
    """
    part = checkpoint_folder.temporary_folder(directory)
    tensors = {
        **_weights(model),
        **_prefixed("table_optimizer", _flat(table_optimizer.state())),
        **_prefixed("dense_optimizer", dense_optimizer_state(model, dense_optimizer)),
    }
    about = {
        "fingerprint": fingerprint,
        "world_size": world_size(),
        "table_optimizer": table_optimizer.rule.kind,
        "is_best": is_best,
    }
    try:
        together(lambda: checkpoint_folder.prepare(directory) if rank() == 0 else None)
        together(lambda: _write(tensors, part / "tensors"))
        together(lambda: _write_small_files(part, state))
        names = checkpoint_folder.file_names(part)[rank() :: world_size()]
        hashes = gather(together(lambda: checkpoint_folder.fingerprint_files(part, names)))
        files = {name: entry for entries in hashes for name, entry in entries.items()}
        together(lambda: checkpoint_folder.commit(part, directory, files=files, about=about) if not rank() else None)
    except CheckpointError as error:
        if rank() == 0:
            shutil.rmtree(part, ignore_errors=True)
        free_gb = shutil.disk_usage(next(path for path in directory.parents if path.exists())).free / 1e9
        raise CheckpointError(
            f"checkpoint {directory.name} could not be saved in {directory.parent} ({free_gb:.2f} GB free): {error}; "
            "older checkpoints are untouched: free some space or mend the cause, then resume"
        ) from error


def load(
    directory: Path,
    *,
    model: nn.Module,
    dense_optimizer: torch.optim.Optimizer,
    table_optimizer: TableOptimizer,
    fingerprint: str,
) -> dict[str, Any]:
    """Put a run back to where it was saved. Collective.

    Learning rates stay the caller's. The random state of a rank is restored where the checkpoint was saved by
    as many processes; another number of processes keeps its own.

    Returns:
        The ``state`` given to ``save``.

    Raises:
        CheckpointError: in every rank, for a checkpoint that is not committed, damaged or of another model.
    """
    saved = together(lambda: _open(directory, model=model, fingerprint=fingerprint))
    together(lambda: _check_slots(saved, directory, model=model, table_optimizer=table_optimizer))
    optimizer = empty_dense_optimizer_state(saved.shapes, model, dense_optimizer)
    tensors = {
        **_weights(model),
        **_prefixed("table_optimizer", _flat(table_optimizer.state())),
        **_prefixed("dense_optimizer", optimizer),
    }
    _fill(tensors, directory)
    set_dense_optimizer_state(optimizer, model, dense_optimizer)
    table_optimizer.after_load()
    if saved.about["world_size"] == world_size():
        restore_rng(json.loads((directory / f"rng-{rank()}.json").read_text()))
    return saved.state


def load_weights(directory: Path, *, model: nn.Module, fingerprint: str) -> dict[str, Any]:
    """Like ``load``, but for the weights alone: to evaluate, to export, to start another run from. Collective."""
    saved = together(lambda: _open(directory, model=model, fingerprint=fingerprint))
    _fill(_weights(model), directory)
    return saved.state


def latest(root: Path) -> Path | None:
    """The newest good checkpoint of a run, the same in every rank; damaged ones are skipped with a warning."""
    found: list[Path | None] = [together(lambda: checkpoint_folder.newest_good(root) if rank() == 0 else None)]
    if not is_alone():
        dist.broadcast_object_list(found, src=0)
    return found[0]


@dataclass(frozen=True)
class _Saved:
    """What a verified checkpoint holds, before its tensors are read."""

    about: dict[str, Any]
    state: dict[str, Any]
    shapes: dict[str, TensorStorageMetadata]


def _open(directory: Path, *, model: nn.Module, fingerprint: str) -> _Saved:
    """Verify this rank's share of the files; read what is small."""
    about = checkpoint_folder.verify(directory, part=rank(), num_parts=world_size())["about"]
    if about["fingerprint"] != fingerprint:
        raise CheckpointError(
            f"{directory} belongs to another schema or config (fingerprint {about['fingerprint'][:12]} there, "
            f"{fingerprint[:12]} here); resume with the config and encoder that it was made with, or start a new run"
        )
    metadata = FileSystemReader(directory / "tensors").read_metadata()
    shapes = {
        name: entry for name, entry in metadata.state_dict_metadata.items() if isinstance(entry, TensorStorageMetadata)
    }
    _check_shapes(shapes, directory, model=model)
    return _Saved(about, json.loads((directory / "state.json").read_text()), shapes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's remarks that there is one process, and that ShardedTensor, torchrec's, will go."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        warnings.filterwarnings("ignore", message="Please use DTensor")
        yield


def _write(tensors: dict[str, Tensor], folder: Path) -> None:
    """Write this rank's shards. Collective."""
    with _quiet():
        write_tensors(tensors, storage_writer=FileSystemWriter(folder), no_dist=is_alone())


def _fill(tensors: dict[str, Tensor], directory: Path) -> None:
    """Read live tensors in place. Collective."""

    def read() -> None:
        with _quiet():
            read_tensors(tensors, storage_reader=FileSystemReader(directory / "tensors"), no_dist=is_alone())

    together(read)


def _check_shapes(shapes: Mapping[str, TensorStorageMetadata], directory: Path, *, model: nn.Module) -> None:
    expected = {
        **{f"tables/{spec.name}": (spec.num_rows, spec.width) for spec in find_tables(model)[1].layout.tables},
        **{f"dense/{name}": tuple(tensor.shape) for name, tensor in dense_state(model).items()},
    }
    found = {name: tuple(entry.size) for name, entry in shapes.items() if name.startswith(("tables/", "dense/"))}
    if expected != found:
        name = min(name for name in {*expected, *found} if expected.get(name) != found.get(name))
        raise CheckpointError(
            f"{directory} holds another model: {name} has shape {found.get(name, 'none')} there and "
            f"{expected.get(name, 'none')} here; use the config that it was made with"
        )


def _check_slots(saved: _Saved, directory: Path, *, model: nn.Module, table_optimizer: TableOptimizer) -> None:
    expected = {
        f"table_optimizer/{spec.name}/{slot}"
        for spec in find_tables(model)[1].layout.tables
        for slot in table_optimizer.rule.slots(spec.num_rows, spec.width)
    }
    kind = saved.about["table_optimizer"]
    if kind != table_optimizer.rule.kind or not expected <= saved.shapes.keys():
        raise CheckpointError(
            f"{directory} was saved with tables.optimizer.kind: {kind}, not {table_optimizer.rule.kind}; "
            "resume with the same, or start a new run"
        )


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {**_prefixed("tables", find_tables(model)[1].table_weights()), **_prefixed("dense", dense_state(model))}


def _flat(state: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{owner}/{slot}": tensor for owner, slots in state.items() for slot, tensor in slots.items()}


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def _write_small_files(part: Path, state: Mapping[str, Any]) -> None:
    checkpoint_folder.write_synced(part / f"rng-{rank()}.json", json.dumps(rng_state()))
    if rank() == 0:
        checkpoint_folder.write_synced(part / "state.json", json.dumps(dict(state)))

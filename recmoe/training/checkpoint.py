"""Checkpoints: the logical model, its optimizers, progress and random state, for any number of processes.

A checkpoint is a folder::

    step-00001000/
        manifest.json       size and SHA-256 of every file, fingerprint of schema and config
        state.json          what the caller wants back: step, cursor, schedule, best value …
        rng-0.json …        random generators of every rank
        tensors/            tables/<table>, table_optimizer/<table>/<slot>, dense/<parameter>,
                            dense_optimizer/<parameter>/<slot>; ``tensor_files`` describes the files

The names are those of the logical model, whole tables and not shards: another number of
processes, another sharding and the other back end find what they need. A rank writes the shards
that it holds and reads the boxes that it needs; no rank ever holds a whole model.

Saving beside the training::

    training   … step │ copy own share │ step  step  step  step … │ next save: wait, raise, copy …
    thread             └─ write, hash, sync ─ gather names ─ commit, prune ─┘

The step waits for the copy alone, which takes as much host memory as this rank's share of tables and
optimizer state; it is kept for the next save. Where there is no room for it, and where
``training.async_checkpoints`` is off, the step waits for the commit. The threads of all ranks talk over
a group of their own, so that their messages never meet those of the training, and an error in one of
them is raised in all ranks at the next save or at the end.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from recmoe.embeddings.placement import TableOptimizer
from recmoe.errors import CheckpointError
from recmoe.training import checkpoint_folder
from recmoe.training.checkpoint_fit import check_shapes, check_slots
from recmoe.training.checkpoint_folder import step_folder
from recmoe.training.dense_optimizer_state import empty_dense_optimizer_state, set_dense_optimizer_state
from recmoe.training.pieces import pieces_here
from recmoe.training.rng import restore_rng
from recmoe.training.snapshot import STATE, TENSORS, Snapshot, prefixed, rng_file, slots_of, take, weights_of, write
from recmoe.training.staging import Staging, free_bytes
from recmoe.training.stored_tensors import StoredTensor, StoredTensors
from recmoe.training.together import check_shared, gather, is_alone, rank, together, world_size

LOG = logging.getLogger(__name__)


class CheckpointStore:
    """The checkpoints of one run: the newest ones and the best. Making one is collective.

    Args:
        root: the run's folder of checkpoints, on a disk that all ranks share.
        model, dense_optimizer, table_optimizer: what is saved and restored.
        fingerprint: of the schema, vocabularies and config that the weights belong to.
        keep: newest checkpoints kept; the best one is kept beside them.
        is_async: whether ``save`` returns before the checkpoint is committed.
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
        is_async: bool = False,
    ) -> None:
        self._root = root
        self._model = model
        self._dense_optimizer = dense_optimizer
        self._table_optimizer = table_optimizer
        self._fingerprint = fingerprint
        self._keep = keep
        self._is_async = is_async
        self._staging = Staging()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._group = None if is_alone() else dist.new_group(backend="gloo")
        self._under_way: Future[None] | None = None
        self._verified: Path | None = None

    def save(self, step: int, state: Mapping[str, Any], *, is_best: bool = False) -> None:
        """Commit a checkpoint, now or beside the training, then remove those no longer kept. Collective.

        Raises:
            CheckpointError: in every rank, for this checkpoint or for the one before, whose end is awaited.
        """
        self.finish()
        snapshot = take(
            model=self._model,
            dense_optimizer=self._dense_optimizer,
            table_optimizer=self._table_optimizer,
            state=state,
            fingerprint=self._fingerprint,
            is_best=is_best,
        )
        # Whether there is room is each rank's own affair: those that wait and those that do not meet in the group.
        if self._is_async and self._has_room(snapshot):
            copies, wait = self._staging.copy(snapshot.pieces)
            snapshot = replace(snapshot, pieces=copies, wait=wait)
            self._under_way = self._thread.submit(self._commit, step, snapshot)
        else:
            self._commit(step, snapshot)

    def finish(self) -> None:
        """Wait for the save that is under way, if there is one; CheckpointError, in every rank, if it failed."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """At the end of a ``with``, nothing is under way; an error inside comes before one of a save."""
        try:
            yield
        except BaseException:
            with suppress(CheckpointError, RuntimeError):
                self.finish()
            raise
        self.finish()

    def load(self, step: int) -> dict[str, Any]:
        """Put the run back to a step. Collective; see ``load``."""
        self.finish()
        directory = step_folder(self._root, step)
        return load(
            directory,
            model=self._model,
            dense_optimizer=self._dense_optimizer,
            table_optimizer=self._table_optimizer,
            fingerprint=self._fingerprint,
            is_verified=directory == self._verified,
        )

    def latest(self) -> int | None:
        """Step of the newest good checkpoint; damaged ones are skipped with a warning. Collective."""
        self.finish()
        check_shared(self._root)
        self._verified = latest(self._root)
        return None if self._verified is None else checkpoint_folder.step_of(self._verified)

    def _has_room(self, snapshot: Snapshot) -> bool:
        missing, free = self._staging.missing_bytes(snapshot.pieces), free_bytes()
        if missing > free:
            self._is_async = False
            LOG.warning(
                "checkpoints are saved while the training waits: a copy of %.1f GB does not fit the %.1f GB of free "
                "memory; training.async_checkpoints: false does so without this warning",
                missing / 1e9,
                free / 1e9,
            )
        return missing <= free

    def _commit(self, step: int, snapshot: Snapshot) -> None:
        write(step_folder(self._root, step), snapshot, self._group)
        together(
            lambda: checkpoint_folder.prune(self._root, step=step, keep=self._keep) if rank() == 0 else None,
            self._group,
        )


def save(directory: Path, *, is_best: bool = False, **parts: Any) -> None:
    """Commit a checkpoint to ``directory`` while the caller waits; see ``snapshot.take`` and ``write``. Collective."""
    write(directory, take(is_best=is_best, **parts))


def load(
    directory: Path,
    *,
    model: nn.Module,
    dense_optimizer: torch.optim.Optimizer,
    table_optimizer: TableOptimizer,
    fingerprint: str,
    is_verified: bool = False,
) -> dict[str, Any]:
    """Put a run back to where it was saved. Collective.

    Learning rates stay the caller's. The random state of a rank is restored where the checkpoint was saved by
    as many processes; another number of processes keeps its own.

    Args:
        is_verified: whether the hashes of its files have been checked just now.

    Returns:
        The ``state`` given to ``save``.

    Raises:
        CheckpointError: in every rank, for a checkpoint that is not committed, damaged or of another model.
    """
    saved = together(lambda: _open(directory, model=model, fingerprint=fingerprint, is_verified=is_verified))
    kind = saved.about["table_optimizer"]
    together(lambda: check_slots(saved.tensors, directory, kind=kind, model=model, table_optimizer=table_optimizer))
    optimizer = empty_dense_optimizer_state(saved.tensors, model, dense_optimizer)
    _fill({**weights_of(model), **slots_of(table_optimizer), **prefixed("dense_optimizer", optimizer)}, directory)
    set_dense_optimizer_state(optimizer, model, dense_optimizer)
    table_optimizer.after_load()
    if saved.about["world_size"] == world_size():
        restore_rng(json.loads((directory / rng_file(rank())).read_text(encoding="utf-8")))
    return saved.state


def load_weights(directory: Path, *, model: nn.Module, fingerprint: str) -> dict[str, Any]:
    """Like ``load``, but for the weights alone: to evaluate, to export, to start another run from. Collective."""
    saved = together(lambda: _open(directory, model=model, fingerprint=fingerprint))
    _fill(weights_of(model), directory)
    return saved.state


def latest(root: Path) -> Path | None:
    """The newest good checkpoint of a run, the same in every rank; damaged ones are skipped with a warning.

    Collective: every rank reads and hashes its part of the files.
    """
    for folder in gather(together(lambda: checkpoint_folder.committed(root) if rank() == 0 else []))[0]:
        try:
            together(lambda: checkpoint_folder.verify(folder, part=rank(), num_parts=world_size()))  # noqa: B023
        except CheckpointError as error:
            if rank() == 0:
                checkpoint_folder.LOG.warning("skipped: %s", error)
        else:
            return folder
    return None


@dataclass(frozen=True)
class _Saved:
    """What a verified checkpoint holds, before its tensors are read."""

    about: dict[str, Any]
    state: dict[str, Any]
    tensors: Mapping[str, StoredTensor]


def _open(directory: Path, *, model: nn.Module, fingerprint: str, is_verified: bool = False) -> _Saved:
    """Verify this rank's share of the files; read what is small."""
    if is_verified:
        about = checkpoint_folder.read_manifest(directory)["about"]
    else:
        about = checkpoint_folder.verify(directory, part=rank(), num_parts=world_size())["about"]
    if about["fingerprint"] != fingerprint:
        raise CheckpointError(
            f"{directory} belongs to another schema or config (fingerprint {about['fingerprint'][:12]} there, "
            f"{fingerprint[:12]} here); resume with the config and encoder that it was made with, or start a new run"
        )
    with StoredTensors(directory / TENSORS) as stored:
        tensors = stored.tensors
    check_shapes(tensors, directory, model=model)
    return _Saved(about, json.loads((directory / STATE).read_text(encoding="utf-8")), tensors)


def _fill(tensors: Mapping[str, Tensor], directory: Path) -> None:
    """Read live tensors in place, what this rank holds of them. Collective."""

    def read() -> None:
        with StoredTensors(directory / TENSORS) as stored, torch.no_grad():
            for piece in pieces_here(tensors):
                stored.read_into(piece.values, piece.name, piece.start)

    together(read)

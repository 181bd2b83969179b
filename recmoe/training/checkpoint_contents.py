"""What is in checkpoints: which there are, what a tensor looks like, how two differ; read block by block."""

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from recmoe.errors import CheckpointError
from recmoe.training import checkpoint_folder
from recmoe.training.checkpoint_folder import MANIFEST
from recmoe.training.snapshot import STATE, TENSORS
from recmoe.training.stored_tensors import StoredTensors


@dataclass(frozen=True)
class CheckpointRow:
    """A checkpoint as a line of a list."""

    path: Path
    step: int
    saved_at: str
    """UTC."""
    num_bytes: int
    world_size: int | None
    """Processes that it was saved by."""
    is_best: bool
    """Whether it had validated best when it was saved."""
    status: str
    """``ok``, or what is wrong."""


@dataclass(frozen=True)
class TensorSummary:
    """A logical tensor in a few numbers."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    num_bytes: int
    num_parts: int
    """Parts that it is stored in."""
    norm: float
    mean: float
    abs_max: float
    num_not_finite: int
    """NaN and infinite values; they are left out of the other numbers."""


@dataclass(frozen=True)
class Contents:
    """A checkpoint in a few numbers per tensor."""

    path: Path
    about: dict[str, Any]
    state: dict[str, Any]
    tensors: tuple[TensorSummary, ...]


@dataclass(frozen=True)
class TensorDifference:
    """How a tensor of one checkpoint differs from that of another."""

    name: str
    kind: Literal["values", "shape", "only in the first", "only in the second"]
    max_abs: float = math.nan
    changed_rows: float = math.nan
    """Share of rows with any other value; a vector's values count as rows."""


def root_of(source: Path) -> Path:
    """The folder of checkpoints that a user means: a run's, or the folder itself.

    Raises:
        CheckpointError: there is none.
    """
    for root in (source / "checkpoints", source):
        if root.is_dir() and (checkpoint_folder.committed(root) or checkpoint_folder.uncommitted(root)):
            return root
    raise CheckpointError(f"{source} holds no checkpoints; give the folder of a run, or of its checkpoints")


def find_checkpoint(source: Path) -> Path:
    """The checkpoint that a user means: a folder ``step-…``, or the newest good one of a run.

    Raises:
        CheckpointError: there is none.
    """
    if (source / MANIFEST).exists() or source.name.startswith("step-"):
        return source
    found = checkpoint_folder.newest_good(root_of(source))
    if found is None:
        raise CheckpointError(f"{source} holds no checkpoint that is committed and undamaged")
    return found


def list_checkpoints(source: Path, *, is_thorough: bool = False) -> list[CheckpointRow]:
    """The checkpoints of a run, the newest first, then what was never committed.

    Args:
        is_thorough: compare the hashes of all files, which reads everything, and not their sizes alone.
    """
    root = root_of(source)
    rows = [_row(folder, is_thorough) for folder in checkpoint_folder.committed(root)]
    return rows + [
        CheckpointRow(
            path=folder,
            step=int(folder.name.split(".")[1].removeprefix("step-")),
            saved_at=_changed_at(folder),
            num_bytes=_size(folder),
            world_size=None,
            is_best=False,
            status="never committed: a save that is under way, or was killed; the next save removes it",
        )
        for folder in checkpoint_folder.uncommitted(root)
    ]


def read_contents(folder: Path) -> Contents:
    """Read a checkpoint once, tensor by tensor."""
    about = checkpoint_folder.read_manifest(folder)["about"]
    with StoredTensors(folder / TENSORS) as stored:
        tensors = tuple(_summary(stored, name) for name in stored.tensors)
    return Contents(folder, about, json.loads((folder / STATE).read_text(encoding="utf-8")), tensors)


def compare(first: Path, second: Path) -> tuple[int, list[TensorDifference]]:
    """Compare two checkpoints, whatever processes and shardings they were saved by.

    Returns:
        How many tensors are equal, and the others.
    """
    for folder in (first, second):
        checkpoint_folder.read_manifest(folder)
    with StoredTensors(first / TENSORS) as one, StoredTensors(second / TENSORS) as other:
        names = sorted({*one.tensors, *other.tensors})
        found = [_difference(one, other, name) for name in names]
    differences = [difference for difference in found if difference is not None]
    return len(names) - len(differences), differences


def _row(folder: Path, is_thorough: bool) -> CheckpointRow:
    about: dict[str, Any] = {}
    status = "ok"
    try:
        about = checkpoint_folder.read_manifest(folder)["about"]
        checkpoint_folder.verify(folder, with_hashes=is_thorough)
    except CheckpointError as error:
        status = str(error)
    return CheckpointRow(
        path=folder,
        step=checkpoint_folder.step_of(folder),
        saved_at=about.get("saved_at") or _changed_at(folder),
        num_bytes=_size(folder),
        world_size=about.get("world_size"),
        is_best=about.get("is_best", False),
        status=status,
    )


def _summary(stored: StoredTensors, name: str) -> TensorSummary:
    total = squares = largest = 0.0
    num_values = num_not_finite = 0
    for block in stored.box(name).blocks():
        values = block.double()
        is_finite = values.isfinite()
        if not is_finite.all():
            num_not_finite += int((~is_finite).sum())
            values = values[is_finite]
        if values.numel():
            total += float(values.sum())
            squares += float(values.square().sum())
            largest = max(largest, float(values.abs().max()))
            num_values += values.numel()
    tensor = stored.tensors[name]
    return TensorSummary(
        name=name,
        shape=tensor.shape,
        dtype=str(tensor.dtype).removeprefix("torch."),
        num_bytes=tensor.num_bytes,
        num_parts=len(tensor.parts),
        norm=math.sqrt(squares),
        mean=total / max(1, num_values),
        abs_max=largest,
        num_not_finite=num_not_finite,
    )


def _difference(one: StoredTensors, other: StoredTensors, name: str) -> TensorDifference | None:
    if name not in other.tensors:
        return TensorDifference(name, "only in the first")
    if name not in one.tensors:
        return TensorDifference(name, "only in the second")
    first, second = one.tensors[name], other.tensors[name]
    if (first.shape, first.dtype) != (second.shape, second.dtype):
        return TensorDifference(name, "shape")
    largest, num_changed, num_rows = 0.0, 0, 0
    for before, after in zip(one.box(name).blocks(), other.box(name).blocks(), strict=True):
        is_changed = _changed(before, after)
        num_rows += is_changed.shape[0]
        if is_changed.any():
            num_changed += int(is_changed.any(dim=1).sum())
            gaps = (before.double() - after.double()).abs()
            largest = max(largest, float(gaps.nan_to_num(nan=math.inf).reshape(is_changed.shape)[is_changed].max()))
    return TensorDifference(name, "values", largest, num_changed / num_rows) if num_changed else None


def _changed(before: Tensor, after: Tensor) -> Tensor:
    """Which values differ, by row; NaN equals NaN."""
    is_same = before.eq(after) | (before.isnan() & after.isnan())
    return is_same.logical_not().reshape(before.shape[0] if before.ndim else 1, -1)


def _changed_at(folder: Path) -> str:
    return datetime.fromtimestamp(folder.stat().st_mtime, UTC).isoformat(timespec="seconds")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

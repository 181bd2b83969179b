"""What a teacher says of the training rows: computed once, kept next to the encoded rows, looked up in every step.

Of several teachers it is the mean of their logits: of a binary task, the mean log-odds.
"""

# N rows of the training split, Z logits of the student

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recmoe.config import config_from_dict
from recmoe.data.parquet import ParquetStream
from recmoe.errors import DataError, SchemaError, TrainingError
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.runs.encoder import CHUNK_ROWS
from recmoe.runs.folder import RunFolder, emptied
from recmoe.runs.origin import Origin, is_settled, origin_of
from recmoe.tasks.funnel import TaskSet

LOGITS, ABOUT = "logits.npy", "about.json"
LEARNING_KEYS = {"weight", "outside_space", "loss", "huber_delta"}
"""Of a task: how it is learned, which changes nothing about what a prediction means."""


def teacher_of(folder: RunFolder) -> Origin | None:
    """The teacher of a run; None for one that learns from labels alone."""
    origin = origin_of(folder)
    return origin if origin is not None and origin.made_by == "distil" else None


def taught_tasks(folder: RunFolder) -> tuple[str, ...]:
    """The tasks of a run that its teacher knows too."""
    return tuple(folder.state.get("taught", ()))


def remember_origin(folder: RunFolder, origin: Origin, config: ExperimentConfig) -> None:
    """Write into a run's state what it is made from, before its first step; of a teacher, what it teaches.

    Raises:
        TrainingError: the run has begun without it, it learns without labels, or the two have no task in common.
        ConfigError, BundleError: the teacher's config cannot be read, or its files are damaged.
    """
    if config.model.pretraining is not None:
        raise TrainingError(f"model.pretraining is set, and what {origin.made_by} makes learns tasks; drop the section")
    is_teacher = origin.made_by == "distil"
    if is_teacher and config.data.encoded_cache == "off":
        raise TrainingError(
            "data.encoded_cache is off, and what a teacher says of a row stands next to the encoded row; "
            "set it to auto or on"
        )
    if not is_settled(folder, origin):
        taught = {name for one in origin.all for name in _common_tasks(config, one)} if is_teacher else {}
        folder.update_state(origin=origin.to_json(), taught=[name for name in config.tasks if name in taught])


def keep_teacher_rows(
    teacher: Origin, folder: RunFolder, stream: ParquetStream, tasks: TaskSet, *, is_quiet: bool
) -> None:
    """Compute what the teacher says of every training row, if it is not there yet.

    The teacher reads the raw rows through its own encoder: it may have features that the student lacks, or read them
    otherwise.

    Raises:
        TrainingError, BundleError: the teacher is gone, damaged, or not the one that the run began with.
        DataError, SchemaError: the rows lack a column that the teacher reads, or the disk is full.
    """
    digests = [one.digest for one in teacher.all]
    about = {"teachers": digests, "files": stream.identity, "logits": list(tasks.logit_names)}
    if _read_about(folder) == about:
        return
    bundles = [one.load() for one in teacher.all]
    try:
        with emptied(folder.teacher.with_name(f".{folder.teacher.name}.part")) as part:
            shape = (stream.num_rows, len(tasks.logit_names))
            logits_NZ = np.lib.format.open_memmap(part / LOGITS, mode="w+", dtype=np.float32, shape=shape)
            mean_logits(bundles, stream, tasks, into_NZ=logits_NZ)
            logits_NZ.flush()
            (part / ABOUT).write_text(json.dumps(about), encoding="utf-8")
            shutil.rmtree(folder.teacher, ignore_errors=True)
            part.rename(folder.teacher)
    except OSError as error:
        raise DataError(
            f"{folder.teacher}: cannot keep what the teacher says of the training rows ({error}); free some space and "
            "resume"
        ) from error
    if not is_quiet:
        names = ", ".join(one.source for one in teacher.all)
        print(f"teacher: {stream.num_rows:,} rows scored by {names}", file=sys.stderr, flush=True)


def teacher_rows(folder: RunFolder) -> NDArray[np.float32] | None:
    """logits_NZ of the training rows in the order of the files, mapped from disk; None where none are kept."""
    if not (folder.teacher / ABOUT).exists():
        return None
    logits_NZ: NDArray[np.float32] = np.load(folder.teacher / LOGITS, mmap_mode="r")
    return logits_NZ


def mean_logits(
    bundles: Sequence[ModelBundle], stream: ParquetStream, tasks: TaskSet, *, into_NZ: NDArray[np.float32]
) -> None:
    """What models give for all rows of a stream, in the order of the files: the mean of those that know a logit.

    Args:
        tasks: of the student, whose columns are filled; what no model knows is NaN.

    Raises:
        SchemaError: the rows lack a column that one of the models reads.
    """
    columns = {column: None for bundle in bundles for column in _columns(bundle, stream)}
    start = 0
    for block in stream.blocks_in_file_order([(0, stream.num_rows)], batch_size=CHUNK_ROWS, columns=tuple(columns)):
        sum_BZ = np.zeros((block.table.num_rows, len(tasks.logit_names)), np.float32)
        count_Z = np.zeros(len(tasks.logit_names), np.float32)
        for bundle in bundles:
            with torch.inference_mode():
                batch = bundle.encoder.encode(block.table, with_labels=False)
                found_BZ = bundle.model(batch).logits_BZ.numpy()
            place = {name: column for column, name in enumerate(bundle.tasks.logit_names)}
            known = [column for column, name in enumerate(tasks.logit_names) if name in place]
            sum_BZ[:, known] += found_BZ[:, [place[tasks.logit_names[column]] for column in known]]
            count_Z[known] += 1
        into_NZ[start : start + len(sum_BZ)] = np.where(count_Z > 0, sum_BZ / np.maximum(count_Z, 1), np.nan)
        start += len(sum_BZ)


def _columns(bundle: ModelBundle, stream: ParquetStream) -> Sequence[str]:
    """Those that a model reads of a log, which must have them."""
    columns = bundle.encoder.columns(with_labels=False)
    try:
        stream.require(columns)
    except SchemaError as error:
        raise SchemaError(f"{bundle.name}, the other model, reads these rows too: {error}") from error
    return columns


def _common_tasks(config: ExperimentConfig, teacher: Origin) -> Sequence[str]:
    """Tasks of both, by name.

    Raises:
        TrainingError: there are none, or one of them means something else in the teacher.
    """
    source = teacher.source
    of_teacher = config_from_dict(ExperimentConfig, teacher.load().config, source=f"config of {source}").tasks
    common = [name for name in config.tasks if name in of_teacher]
    if not common:
        raise TrainingError(
            f"{source} has no task of this config: it predicts {', '.join(of_teacher)}, and the student learns "
            f"{', '.join(config.tasks)}; give a task of the student the name of the teacher's"
        )
    for name in common:
        mine, theirs = (tasks[name].model_dump(mode="json") for tasks in (config.tasks, of_teacher))
        different = _differences(mine, theirs)
        if different:
            raise TrainingError(
                f"task {name} means something else in {source}: {'; '.join(different)}; make the two equal, or give "
                "the student's another name, so that it learns from labels alone"
            )
    return common


def _differences(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    keys = [key for key in {**mine, **theirs} if key not in LEARNING_KEYS and mine.get(key) != theirs.get(key)]
    return [f"{key} is {theirs.get(key)} there and {mine.get(key)} here" for key in keys]


def _read_about(folder: RunFolder) -> Any:
    """What the kept rows were made of; None where there are none, or what is there is damaged."""
    try:
        return json.loads((folder.teacher / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None

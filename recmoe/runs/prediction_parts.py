"""write_prediction_parts(): a log of any size through a model, into a folder that a second start completes."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from recmoe.data.files import is_data_file
from recmoe.data.order import Interval
from recmoe.data.parquet import ParquetStream
from recmoe.errors import BundleError, DataError
from recmoe.ranking.ranker import Ranker
from recmoe.runs.folder import write_atomically
from recmoe.runs.predicted_rows import CHUNK_ROWS, PredictedRows
from recmoe.runs.row_progress import RowProgress

PART_ROWS = 16 * CHUNK_ROWS
"""Rows of a part: what is done again after a crash."""
PLAN = "_predictions.json"
"""What the parts are of; names that begin with "_" are no data to those who read a folder."""
SUCCESS = "_SUCCESS"
"""Is there once all parts are."""
CSV_CACHE = "_csv"


class MapParts(Protocol):
    """Does the parts, here or in other processes, and tells of each once it is done, in order."""

    def __call__(self, write: Callable[["Part"], int], parts: Sequence["Part"], /) -> Iterator[int]: ...


@dataclass(frozen=True)
class Part:
    """Some rows of the log, counted in its order, and the file for them."""

    path: Path
    rows: Interval

    @property
    def num_rows(self) -> int:
        return self.rows[1] - self.rows[0]

    def is_there(self) -> bool:
        """Whether the file is whole; a damaged one is to be made again."""
        try:
            return bool(pq.read_metadata(self.path).num_rows == self.num_rows)
        except (OSError, pa.ArrowException):
            return False


@dataclass(frozen=True)
class PartsWritten:
    """What a start has done."""

    num_rows: int
    num_parts: int
    num_found: int
    """Parts that an earlier start has left."""
    task_names: tuple[str, ...]


def write_prediction_parts(
    bundle: Path,
    paths: Sequence[str],
    target: Path,
    *,
    keep: Sequence[str] = (),
    score: str | None = None,
    rows_per_part: int = PART_ROWS,
    map_parts: MapParts = map,
    is_quiet: bool = False,
) -> PartsWritten:
    """Write ``PredictedRows`` as ``part-00000.parquet``, ``part-00001.parquet``, …, in the order of the log::

        scores/
          _predictions.json      model, log, columns and score that the parts are of
          part-00000.parquet     an unfinished one never carries this name
          _SUCCESS               all parts are there

    A second start makes the parts that are missing.

    Args:
        bundle: folder of the model; every process that makes parts sees it.
        paths: files, folders or globs of Parquet and CSV, likewise.
        target: the folder.
        keep, score: see ``PredictedRows``.
        rows_per_part: the last part may have fewer.
        map_parts: where the parts are made; here by default.
        is_quiet: no progress on the terminal.

    Raises:
        DataError: a file cannot be read; the folder is named like a file, or holds other predictions or something else.
        BundleError: the model is damaged, or changes meanwhile.
        SchemaError: a column is missing or of another type.
        RequestError: there is no formula of that name.
    """
    _check_place(target)
    ranker, folder = _ranker(bundle), target.resolve()
    stream = ParquetStream(paths, seed=0, shuffle_rows=None, cache_dir=folder / CSV_CACHE)
    predicted = PredictedRows(ranker, stream, keep=keep, score=score)
    plan = {
        "model": ranker.info.digest,
        "log": stream.identity,
        "columns": predicted.schema.names,
        "score": predicted.score,
        "rows_per_part": rows_per_part,
    }
    _begin(folder, plan)
    parts = _parts(folder, stream.num_rows, rows_per_part)
    missing = [part for part in parts if not part.is_there()]
    write = partial(_write, bundle, ranker.info.digest, stream, tuple(keep), score)
    progress = RowProgress("predicting", sum(part.num_rows for part in missing), is_quiet=is_quiet)
    try:
        for num_rows in map_parts(write, missing) if missing else ():
            progress.advance(num_rows)
    finally:
        progress.close()
    shutil.rmtree(folder / CSV_CACHE, ignore_errors=True)
    (folder / SUCCESS).touch()
    return PartsWritten(stream.num_rows, len(parts), len(parts) - len(missing), ranker.task_names)


def _write(bundle: Path, digest: str, stream: ParquetStream, keep: Sequence[str], score: str | None, part: Part) -> int:
    """Make one part, in whatever process; its rows."""
    ranker = _ranker(bundle)
    if ranker.info.digest != digest:
        raise BundleError(f"{bundle} has changed since the predictions were begun; start them anew in another folder")
    # Another start may be at the same part.
    unfinished = part.path.with_name(f".{part.path.name}.{os.uname().nodename}.{os.getpid()}")
    try:
        PredictedRows(ranker, stream, keep=keep, score=score).write(unfinished, part.rows)
        unfinished.replace(part.path)
    finally:
        unfinished.unlink(missing_ok=True)
    return part.num_rows


@cache
def _ranker(bundle: Path) -> Ranker:
    """A process makes many parts with one model; each proves it by its replay once."""
    return Ranker.load(bundle)


def _parts(folder: Path, num_rows: int, rows_per_part: int) -> list[Part]:
    starts = range(0, num_rows, rows_per_part)
    return [
        Part(folder / f"part-{number:05d}.parquet", (start, min(start + rows_per_part, num_rows)))
        for number, start in enumerate(starts)
    ]


def _check_place(folder: Path) -> None:
    """DataError where a folder is named like a file, or something else is in its place."""
    if is_data_file(folder):
        raise DataError(
            f"predictions are written as Parquet; name the file {folder.with_suffix('.parquet')}, or a folder for parts"
        )
    if folder.is_dir() and ((folder / PLAN).is_file() or not any(folder.iterdir())):
        return
    if folder.exists():
        raise DataError(f"{folder} is there and holds no predictions; name another folder")


def _begin(folder: Path, plan: dict[str, Any]) -> None:
    """Write the plan down; DataError where the folder holds the parts of another one."""
    path = folder / PLAN
    if path.is_file():
        try:
            found = json.loads(path.read_bytes())
        except ValueError as error:
            raise DataError(f"{path} is damaged: {error}; remove {folder}, or name another folder") from error
        others = [name for name, value in plan.items() if not isinstance(found, dict) or found.get(name) != value]
        if others:
            names = ", ".join(name.replace("_", " ") for name in others)
            raise DataError(
                f"{folder} holds predictions that differ in {names}; name another folder, or remove it to begin anew"
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(plan, indent=2))

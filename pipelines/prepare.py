"""Preparation in Ray Data: workers learn from a share of the rows each, and what they learnt is merged."""

import itertools
import logging
import pickle
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.ray_session import ray_session
from recmoe.data.order import Interval
from recmoe.data.parquet import ParquetStream
from recmoe.errors import DataError, RecmoeError, TrainingError
from recmoe.experiment import ExperimentConfig
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.fit import Learner
from recmoe.features.id_counts import NUM_PARTITIONS, IdCounts
from recmoe.features.known import Known
from recmoe.features.number_learner import PIECE_ROWS
from recmoe.runs.encoder import check_rows, encoder_of, learn_rows, memory_bytes
from recmoe.runs.folder import emptied

TASKS_PER_WORKER = 4
"""Shares of the rows per worker: a slow worker is not waited for long, a lost one takes little with it."""
BASE = "base"
"""Folder of the encoder that grows, for all workers to see."""
MAX_RETRIES = 3
"""Times that a share is done again after its worker died."""


@contextmanager
def reading_on_ray(*, num_workers: int) -> Iterator["ReadOnRay"]:
    """A Ray session in which rows are read."""
    with ray_session(num_workers=num_workers):
        yield ReadOnRay(num_workers)


class ReadOnRay:
    """Reading in ``num_workers`` workers of Ray Data, with the result of ``ReadHere``.

    Ray Data carries shares of the work, not rows: a worker reads its rows from the files and leaves the ids it
    has counted in files that all workers see::

        shares of the rows       → learn: a Learner, its ids spilled by partition   → merged here
        partitions of a table    → add up all workers' counts, keep the frequent    → its ids
        shares of a split        → encode every row                                 → the first error, if any

    Args:
        num_workers: shares that are worked on at a time; ``data.memory_gb`` is divided among them and this process.
    """

    def __init__(self, num_workers: int) -> None:
        self._num_workers = num_workers

    def learn(
        self, config: ExperimentConfig, stream: ParquetStream, *, scratch: Path, base: FeatureEncoder | None = None
    ) -> FeatureEncoder:
        with emptied(scratch.resolve()) as folder:
            if base is not None:
                base.save(folder / BASE)
            # This process merges meanwhile, and holds the vocabularies in the end.
            job = _Job(config, stream, folder, memory_bytes(config) // (self._num_workers + 1))
            learner: Learner | None = None
            for part in self._map(partial(_learn, job), _shares(stream.num_rows, self._num_workers)):
                if learner is None:
                    learner = part
                else:
                    learner.merge(part)
            assert learner is not None
            known = Known(config.inputs, None if base is None else base.state)
            return encoder_of(config, stream, learner, self._candidates(job, learner, known), base=base)

    def _candidates(self, job: "_Job", learner: Learner, known: Known) -> Mapping[str, pa.Table]:
        """By table, the ids that may get a row."""
        bounds = [i * NUM_PARTITIONS // self._num_workers for i in range(self._num_workers + 1)]
        ranges = [range(first, stop) for first, stop in itertools.pairwise(bounds) if stop > first]
        work = [(table, partitions) for table in learner.tables for partitions in ranges]
        parts: dict[str, list[Path]] = {table: [] for table in learner.tables}
        keep = partial(_keep_candidates, job, learner.ids)
        for (table, _), path in zip(work, self._map(keep, work), strict=True):
            parts[table].append(path)
        return {table: known.candidates(table, map(_read_table, paths)) for table, paths in parts.items()}

    def check(self, stream: ParquetStream, encoder: FeatureEncoder, *, scratch: Path) -> None:
        with emptied(scratch.resolve()) as folder:
            encoder.save(folder / "encoder")
            num_shares = len(_shares(stream.num_rows, self._num_workers))
            shares = [(rank, num_shares) for rank in range(num_shares)]
            for _ in self._map(partial(_check, stream, folder), shares):
                pass

    def _map(self, function: Callable[[Any], Any], work: Sequence[Any]) -> Iterator[Any]:
        """What a function makes of each piece of work, in order; the error of the first piece that has one.

        Raises:
            RecmoeError: what the function has raised.
            TrainingError: its workers died again and again.
        """
        import ray.data
        from ray.exceptions import RayError, RayTaskError
        from ray.util.annotations import RayDeprecationWarning

        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.execution_options.preserve_order = True
        pieces = ray.data.from_items([pickle.dumps(piece) for piece in work], override_num_blocks=len(work))
        compute = ray.data.TaskPoolStrategy(size=min(self._num_workers, len(work)))
        with warnings.catch_warnings():
            # Deprecated, with nothing yet in its place; without it Ray Data tries again for ever.
            warnings.simplefilter("ignore", RayDeprecationWarning)
            results = pieces.map(
                partial(_answer, function),
                num_cpus=1,
                compute=compute,
                ray_remote_args_fn=lambda: {"max_retries": MAX_RETRIES},
            )
        try:
            for row in results.iter_rows():
                result = pickle.loads(row["result"])
                if isinstance(result, RecmoeError):
                    raise result
                yield result
        except RayTaskError:
            raise
        except RayError as error:
            cause = str(error).strip().splitlines()[0].strip()
            raise TrainingError(
                f"workers of the preparation died {MAX_RETRIES + 1} times ({cause}); if it was for want of memory, "
                "lower data.memory_gb or the number of workers, and start it again"
            ) from error


@dataclass(frozen=True)
class _Job:
    """What every worker of ``learn`` knows."""

    config: ExperimentConfig
    stream: ParquetStream
    folder: Path
    num_bytes: int
    """Memory of one worker."""


def _shares(num_rows: int, num_workers: int) -> list[Interval]:
    """Rows in the order of the files, cut between pieces into about equal shares."""
    num_pieces = -(-num_rows // PIECE_ROWS)
    num_shares = min(num_pieces, TASKS_PER_WORKER * num_workers)
    bounds = [min(i * num_pieces // num_shares * PIECE_ROWS, num_rows) for i in range(num_shares + 1)]
    return list(itertools.pairwise(bounds))


def _answer(function: Callable[[Any], Any], row: Mapping[str, Any]) -> dict[str, bytes]:
    """Errors of recmoe are answers: Ray would try again, and hide them in its own."""
    try:
        result = function(pickle.loads(row["item"]))
    except RecmoeError as error:
        result = type(error)(str(error))
    return {"result": pickle.dumps(result)}


def _learn(job: _Job, rows: Interval) -> Learner:
    _see(job.folder)
    learner = learn_rows(job.config, job.stream, rows, scratch=job.folder, num_bytes=job.num_bytes)
    learner.ids.spill()
    return learner


def _keep_candidates(job: _Job, ids: IdCounts, work: tuple[str, range]) -> Path:
    table, partitions = work
    base = FeatureEncoder.load(job.folder / BASE).state if (job.folder / BASE).exists() else None
    known = Known(job.config.inputs, base)
    candidates = known.candidates(table, ids.merged(table, partitions))
    # Tables are named by users; files are numbered, for a name may hold a slash.
    place = known.tables.index(table)
    path = job.folder / f"candidates-{place}-{partitions.start}.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, candidates.schema) as writer:
        writer.write_table(candidates)
    return path


def _read_table(path: Path) -> pa.Table:
    with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as reader:
        return reader.read_all()


def _check(stream: ParquetStream, folder: Path, share: tuple[int, int]) -> None:
    _see(folder)
    rank, world_size = share
    check_rows(stream, FeatureEncoder.load(folder / "encoder"), rank=rank, world_size=world_size)


def _see(folder: Path) -> None:
    """DataError on a machine that does not see the run's folder."""
    if not folder.is_dir():
        raise DataError(
            f"{folder.parent}: node {socket.gethostname()} does not see this folder; put --run-dir where all nodes "
            "see it under the same path"
        )

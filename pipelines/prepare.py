"""Preparation in Ray Data: workers learn from a share of the rows each, and what they learnt is merged."""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from pipelines.ray_pool import RayPool, see
from pipelines.ray_session import ray_session
from recmoe.data.order import Interval
from recmoe.data.parquet import ParquetStream
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
        self._pool = RayPool(
            num_workers, doing="the preparation", if_memory="lower data.memory_gb or the number of workers"
        )

    def learn(
        self, config: ExperimentConfig, stream: ParquetStream, *, scratch: Path, base: FeatureEncoder | None = None
    ) -> FeatureEncoder:
        with emptied(scratch.resolve()) as folder:
            if base is not None:
                base.save(folder / BASE)
            # This process merges meanwhile, and holds the vocabularies in the end.
            job = _Job(config, stream, folder, memory_bytes(config) // (self._num_workers + 1))
            learner: Learner | None = None
            for part in self._pool.map(partial(_learn, job), _shares(stream.num_rows, self._num_workers)):
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
        for (table, _), path in zip(work, self._pool.map(keep, work), strict=True):
            parts[table].append(path)
        return {table: known.candidates(table, map(_read_table, paths)) for table, paths in parts.items()}

    def check(self, stream: ParquetStream, encoder: FeatureEncoder, *, scratch: Path) -> None:
        with emptied(scratch.resolve()) as folder:
            encoder.save(folder / "encoder")
            num_shares = len(_shares(stream.num_rows, self._num_workers))
            shares = [(rank, num_shares) for rank in range(num_shares)]
            for _ in self._pool.map(partial(_check, stream, folder), shares):
                pass


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


def _learn(job: _Job, rows: Interval) -> Learner:
    see(job.folder, named_by="--run-dir")
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
    see(folder, named_by="--run-dir")
    rank, world_size = share
    check_rows(stream, FeatureEncoder.load(folder / "encoder"), rank=rank, world_size=world_size)

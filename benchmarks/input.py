"""What the input costs per batch: read, shuffled, encoded, and gathered from the encoded cache.

python -m benchmarks.input --rows 1000000 --encoding index vocabulary hash
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recmoe.cli.output import print_columns
from recmoe.data.encoded_cache import EncodedCache
from recmoe.data.encoded_rows import EncodedRows
from recmoe.data.loader import BatchLoader
from recmoe.data.parquet import ParquetStream
from recmoe.features.batch import Batch
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.labels import LabelColumn
from recmoe.features.schema import FeatureSchema
from recmoe.runs.encoder import CHUNK_ROWS

NUM_IDS = tuple(round(float(num)) for num in np.geomspace(10, 1_000_000, 26))
NUM_FLOATS = 13
BATCH_SIZE = 4096
SHUFFLE_ROWS = 262_144


@dataclass(frozen=True)
class Cost:
    """What some rows took: of the clock, and of all cores together."""

    num_rows: int
    wall_s: float
    cpu_s: float

    def line(self, name: str) -> tuple[str, int, float, float]:
        """Name, rows per second, milliseconds of the clock and of the cores per batch."""
        per_batch = 1e3 * BATCH_SIZE / self.num_rows
        return name, int(self.num_rows / self.wall_s), self.wall_s * per_batch, self.cpu_s * per_batch


def measured(run: Callable[[], Iterable[int]]) -> Cost:
    """Time of something that says, piece by piece, how many rows it has done."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    num_rows = sum(run())
    return Cost(num_rows, time.perf_counter() - wall_s, time.process_time() - cpu_s)


def write_log(path: Path, num_rows: int) -> None:
    """26 Zipf ids, 13 normal floats, clicks and conversions, without any meaning."""
    random = np.random.default_rng(0)
    with pq.ParquetWriter(path, _table(random, 1).schema) as writer:
        for start in range(0, num_rows, CHUNK_ROWS):
            writer.write_table(_table(random, min(CHUNK_ROWS, num_rows - start)))


def _table(random: np.random.Generator, num_rows: int) -> pa.Table:
    click = random.random(num_rows) < 0.1
    columns: dict[str, Any] = {f"id_{i}": random.zipf(1.1, num_rows) % num for i, num in enumerate(NUM_IDS)}
    columns |= {f"x_{i}": random.standard_normal(num_rows).astype(np.float32) for i in range(NUM_FLOATS)}
    columns |= {"click": click.astype(np.int8), "conversion": (click & (random.random(num_rows) < 0.1)).astype(np.int8)}
    return pa.table(columns)


def make_encoder(stream: ParquetStream, kind: str) -> FeatureEncoder:
    """All ids encoded in one way."""
    features: dict[str, Any] = {f"x_{i}": {"kind": "numeric"} for i in range(NUM_FLOATS)}
    for place, num_ids in enumerate(NUM_IDS):
        sizes = {"index": {"num_ids": num_ids}, "hash": {"num_buckets": num_ids}, "vocabulary": {}}
        features[f"id_{place}"] = {"kind": "id", "encoding": {"kind": kind, **sizes[kind]}}
    schema = FeatureSchema.model_validate({"width": 16, "features": features})
    labels = [LabelColumn("click", is_binary=True), LabelColumn("conversion", is_binary=True, implies="click")]
    return FeatureEncoder.fit(schema, stream.chunks(batch_size=CHUNK_ROWS), labels)


def measure(path: Path, folder: Path, kind: str, *, num_threads: int) -> Iterator[tuple[str, int, float, float]]:
    """A line per way of reading."""
    stream = ParquetStream([str(path)], seed=0, shuffle_rows=SHUFFLE_ROWS, cache_dir=folder)
    encoder = make_encoder(stream, kind)
    columns = list(encoder.columns())

    def raw() -> Iterator[int]:
        with pq.ParquetFile(path) as file:
            yield from (file.read_row_group(i, columns=columns).num_rows for i in range(file.num_row_groups))

    def epoch(number: int, rows: EncodedRows | None) -> Iterator[int]:
        loader = BatchLoader(stream, encoder, batch_size=BATCH_SIZE, encoded=rows)
        yield from (batch.num_rows for batch in loader.epoch(stream.start(number)))

    def all_rows(rows: EncodedRows | None) -> Iterator[int]:
        loader = BatchLoader(stream, encoder, batch_size=BATCH_SIZE, encoded=rows)
        yield from (batch.num_rows for batch, _, _ in loader.all_rows())

    def once() -> Iterator[Batch]:
        loader = BatchLoader(stream, encoder, batch_size=CHUNK_ROWS, num_threads=num_threads)
        return (batch for batch, _, _ in loader.all_rows())

    cache = EncodedCache(folder / "encoded", encoder)
    yield measured(raw).line("Parquet, nothing else")
    yield measured(
        lambda: (
            table.num_rows for table in stream.batches(stream.start(), rank=0, world_size=1, batch_size=BATCH_SIZE)
        )
    ).line("Parquet, shuffled")
    yield measured(lambda: epoch(0, None)).line(f"shuffled and encoded: {kind}")
    yield measured(lambda: all_rows(None)).line(f"in file order, encoded: {kind}")
    yield measured(lambda: [cache.ensure(stream, once).num_rows]).line(f"encoded once and kept: {kind}")
    rows = cache.ensure(stream, once)
    yield measured(lambda: epoch(0, rows)).line("shuffled, from the cache, first time")
    yield measured(lambda: epoch(1, rows)).line("shuffled, from the cache, again")
    yield measured(lambda: all_rows(rows)).line("in file order, from the cache")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--encoding", nargs="+", default=["index"], choices=["index", "vocabulary", "hash"])
    parser.add_argument("--threads", type=int, default=2, help="that encode what is kept")
    parser.add_argument("--to", type=Path, help="folder for log and cache; a temporary one by default")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="recmoe-", dir=given.to) as name:
        path = Path(name) / "train.parquet"
        write_log(path, given.rows)
        for kind in given.encoding:
            lines = list(measure(path, Path(name), kind, num_threads=given.threads))
            print_columns(["input", "rows/s", f"ms per {BATCH_SIZE}", f"CPU ms per {BATCH_SIZE}"], lines)
            print()
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()

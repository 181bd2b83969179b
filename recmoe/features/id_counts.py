"""IdCounts: how often each id of several tables occurs, in bounded memory: what exceeds it goes to disk."""

# n ids, distinct ones u

import itertools
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recmoe.errors import DataError
from recmoe.features.arrow_ids import IdValues
from recmoe.features.id_keys import UInt64s, canonical, keys

NUM_PARTITIONS = 64
"""Parts of a spilled file, by the first bits of the ids' keys; a part of all files is merged at once."""
MERGE_AT = 1 << 20
"""New ids that are worth merging with those counted before."""
SCHEMA = pa.schema({"key": pa.uint64(), "id": pa.large_string(), "count": pa.int64()})
_SHIFT = np.uint64(64 - (NUM_PARTITIONS - 1).bit_length())


class IdCounts:
    """Counts of the ids of some tables; counts of two parts of the data, added, are those of the whole.

    Ids are told apart by their 64-bit keys, as everywhere (see ``id_keys``), and kept in the order of the
    keys. When the counts exceed ``max_bytes`` they are written to a file as they are, a record batch per
    table and partition, and counting begins anew. Reading the same partition of all files, and of it only
    as wide a range of keys as fits, gives whole counts without ever holding all ids::

                    partition 0      partition 1     …    partition 63
        file a      [b 2, x 1]       [c 7]                [d 1]
        file b      [b 5]            [c 1, u 1]           [e 2]
        merged      b 7, x 1    →    c 8, u 1    →   …    d 1, e 2

    Args:
        tables: their names.
        folder: where to spill; None counts in memory whatever it takes.
        max_bytes: what the counts may take at rest. Merging and writing take about twice as much again.
    """

    def __init__(self, tables: Sequence[str], *, folder: Path | None = None, max_bytes: int = 1 << 30) -> None:
        self._pending: dict[str, list[pa.Table]] = {table: [] for table in tables}
        self._num_pending = dict.fromkeys(tables, 0)
        self._num_merged = dict.fromkeys(tables, 0)
        self._folder = folder
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self.totals = dict.fromkeys(tables, 0)
        """Of each table, all counts together."""
        self.files: list[Path] = []
        """What has been spilled."""

    def add(self, table: str, ids: IdValues) -> None:
        """Count the ids of a chunk; missing ones do not count."""
        if ids.places is None:
            found = pc.value_counts(ids.distinct.drop_null())
            values, counts = found.field(0), found.field(1)
        else:
            # The place behind the last distinct id collects the nulls, which have place -1.
            num_distinct = len(ids.distinct)
            counted = np.bincount(np.where(ids.places < 0, num_distinct, ids.places), minlength=num_distinct + 1)
            is_counted = pc.and_(ids.distinct.is_valid(), pa.array(counted[:num_distinct] > 0))
            values, counts = ids.distinct.filter(is_counted), pa.array(counted[:num_distinct]).filter(is_counted)
        self._append(table, values, counts)

    def add_repeated(self, table: str, id_: str | int, count: int) -> None:
        """Count one id several times."""
        if count:
            self._append(table, canonical(pa.array([id_])), pa.array([count]))

    def _append(self, table: str, ids: pa.Array, counts: pa.Array) -> None:
        self.totals[table] += pc.sum(counts).as_py() or 0
        new = pa.table([pa.array(keys(ids)), ids.cast(pa.large_string()), counts.cast(pa.int64())], schema=SCHEMA)
        self._pending[table].append(new)
        self._num_pending[table] += len(ids)
        self._num_bytes += new.nbytes
        # Merging only when as much is new as is merged keeps the whole pass linear.
        if self._num_pending[table] > max(MERGE_AT, self._num_merged[table]):
            self._merge(table)
        if self._folder is not None and self._num_bytes > self._max_bytes:
            for name in self._pending:
                self._merge(name)
            # Merged to less than half, there is room for as much again before the next merge.
            if 2 * self._num_bytes > self._max_bytes:
                self.spill()

    def _merge(self, table: str) -> None:
        pending = self._pending[table]
        # Chunks without an id have left tables too.
        if not self._num_pending[table] and len(pending) < 2:
            return
        self._num_bytes -= sum(part.nbytes for part in pending)
        merged = _summed(pending)
        self._pending[table], self._num_pending[table], self._num_merged[table] = [merged], 0, merged.num_rows
        self._num_bytes += merged.nbytes

    def spill(self) -> None:
        """Write what is in memory to a file, so that only ``files`` tells what has been counted.

        Raises:
            DataError: the folder cannot be written to.
        """
        assert self._folder is not None
        if not any(self._pending.values()):
            return
        path = self._folder / f"{uuid.uuid4().hex}.arrow"
        unfinished = path.with_suffix(".unfinished")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with pa.OSFile(str(unfinished), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
                for table in self._pending:
                    self._merge(table)
                    for part in _partitions(self._pending[table]):
                        writer.write_batch(part)
                    self._pending[table] = []
            os.replace(unfinished, path)
        except OSError as error:
            raise DataError(
                f"{self._folder}: cannot write ids that exceed the memory allowed ({error}); "
                "free some space, or raise data.memory_gb"
            ) from error
        self.files.append(path)
        self._num_bytes = 0
        self._num_pending = dict.fromkeys(self._pending, 0)
        self._num_merged = dict.fromkeys(self._pending, 0)
        pa.default_memory_pool().release_unused()

    def absorb(self, other: "IdCounts") -> None:
        """Add counts of the same tables in other rows, all of them spilled."""
        assert not any(other._pending.values())
        assert list(self._pending) == list(other._pending)
        self.files += other.files
        for table, total in other.totals.items():
            self.totals[table] += total

    def merged(self, table: str, partitions: Iterable[int] = range(NUM_PARTITIONS)) -> Iterator[pa.Table]:
        """Every id of some partitions once, with its whole count; a few at a time, in the order of their keys."""
        if not self.files:
            self._merge(table)
            parts = list(_partitions(self._pending[table]))
            yield from (pa.Table.from_batches([parts[partition]]) for partition in partitions)
            return
        self.spill()
        for partition in partitions:
            place = list(self._pending).index(table) * NUM_PARTITIONS + partition
            num_bytes = sum(_batch(file, place).nbytes for file in self.files)
            # Keys are spread evenly over their range, so equal ranges hold about equally many ids.
            num_ranges = 1 + num_bytes // self._max_bytes
            bounds = [(partition << int(_SHIFT)) + i * (1 << int(_SHIFT)) // num_ranges for i in range(num_ranges + 1)]
            for first, stop in itertools.pairwise(bounds):
                yield _summed([_between(_batch(file, place), first, stop) for file in self.files])


def _summed(parts: Sequence[pa.Table]) -> pa.Table:
    """Each id once, with the sum of its counts, in the order of the keys."""
    table = pa.concat_tables(parts)
    keys_n: UInt64s = table["key"].to_numpy()
    order_n = np.argsort(keys_n, kind="stable")
    sorted_n = keys_n[order_n]
    starts_u: NDArray[np.int64] = np.flatnonzero(np.append(True, sorted_n[1:] != sorted_n[:-1])[: len(sorted_n)])
    counts_u = np.add.reduceat(table["count"].to_numpy()[order_n], starts_u) if len(starts_u) else np.zeros(0, np.int64)
    keys_u = sorted_n[starts_u]
    del keys_n, sorted_n
    ids = table["id"].take(pa.array(order_n[starts_u]))
    return pa.table([pa.array(keys_u), ids, pa.array(counts_u)], schema=SCHEMA)


def _partitions(parts: Sequence[pa.Table]) -> Iterator[pa.RecordBatch]:
    """A record batch per partition of a table that is merged, or of nothing."""
    if not parts:
        yield from (pa.RecordBatch.from_pylist([], SCHEMA) for _ in range(NUM_PARTITIONS))
        return
    (table,) = parts
    (table,) = (table.combine_chunks(),) if table["id"].num_chunks > 1 else (table,)
    firsts = np.arange(1, NUM_PARTITIONS, dtype=np.uint64) << _SHIFT
    bounds = [0, *np.searchsorted(table["key"].to_numpy(), firsts).tolist(), table.num_rows]
    for start, stop in itertools.pairwise(bounds):
        batches = table.slice(start, stop - start).to_batches()
        yield batches[0] if batches else pa.RecordBatch.from_pylist([], SCHEMA)


def _batch(file: Path, place: int) -> pa.Table:
    with pa.OSFile(str(file)) as source, pa.ipc.open_file(source) as reader:
        return pa.Table.from_batches([reader.get_batch(place)])


def _between(table: pa.Table, first: int, stop: int) -> pa.Table:
    """The rows whose key is first … stop, of a table in the order of its keys."""
    keys_n = table["key"].to_numpy()
    start = int(np.searchsorted(keys_n, np.uint64(first)))
    # The end of the last partition is one more than a key can be.
    end = len(keys_n) if stop == 1 << 64 else int(np.searchsorted(keys_n, np.uint64(stop)))
    return table.slice(start, end - start)

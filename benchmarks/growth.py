"""Dynamic ids at size: seconds of an update, of a look-up, and bytes per row, against the number of rows.

python -m benchmarks.growth --rows 100000 1000000 10000000
"""

# m different ids of a period

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np

from recmoe.cli.output import print_columns
from recmoe.features.encodings import DynamicConfig
from recmoe.features.encodings.dynamic import DynamicIds
from recmoe.features.id_keys import UInt64s, mix64

LOOKED_UP = 65_536
REPEATS = 20


def sightings(random: np.random.Generator, first: int, num_rows: int) -> tuple[UInt64s, np.ndarray]:
    """A period's ids: as many as there are rows, a tenth of them new, their counts Zipf's."""
    keys_m = np.sort(mix64(np.arange(first, first + num_rows, dtype=np.uint64)))
    return keys_m, np.minimum(random.zipf(1.5, num_rows), 1_000_000)


def measure(num_rows: int) -> tuple[int, float, float, float, float, int]:
    """Rows, seconds of the first update, of a later one in a full table, µs per 1,000 ids looked up, bytes per row."""
    random = np.random.default_rng(0)
    config = DynamicConfig(capacity=num_rows, admit_after=2)
    ids = DynamicIds.empty(num_rows)
    taken = []
    for period in range(8):
        counted = sightings(random, period * num_rows // 4, num_rows)
        started = time.perf_counter()
        ids = ids.updated(*counted, config)
        taken.append(time.perf_counter() - started)
    assert ids.last is not None
    assert ids.last.rows_used == num_rows
    asked = random.choice(ids.keys_n, LOOKED_UP)
    started = time.perf_counter()
    ids.rows_of_keys(asked)
    index_s = time.perf_counter() - started
    started = time.perf_counter()
    for _ in range(REPEATS):
        ids.rows_of_keys(asked)
    lookup_s = (time.perf_counter() - started) / REPEATS
    num_bytes = sum(c.nbytes for c in (ids.keys_n, ids.rows_n, ids.sightings_n, ids.weights_n, ids.seen_n))
    return num_rows, taken[0], taken[-1], index_s - lookup_s, lookup_s / LOOKED_UP * 1e9, num_bytes // num_rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    sizes = parser.parse_args(arguments).rows
    headers = ["rows", "first update, s", "later update, s", "index, s", "ns per id looked up", "bytes per row"]
    print_columns(headers, [measure(size) for size in sizes])
    return 0


if __name__ == "__main__":
    sys.exit(main())

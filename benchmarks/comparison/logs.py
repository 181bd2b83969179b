"""The logs that architectures are compared on: split files with a config, and what is known of the test split."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.plain_logs import FOLDERS
from recmoe.data.datasets import import_dataset
from recmoe.data.splits import SPLITS
from recmoe.data.synthetic import write_synthetic
from recmoe.errors import DataError
from recmoe.evaluation.baselines import BaselineKind
from recmoe.runs.baselines import MOST_ROWS

SYNTHETIC = "synthetic"
NAMES = (SYNTHETIC, *FOLDERS)
SYNTHETIC_ROWS = 250_000
"""200,000 to learn from: what simple models read of a log at most."""
BEST = "best reachable"
SIMPLE: tuple[BaselineKind, ...] = ("logistic_regression", "boosted_trees")


@dataclass(frozen=True)
class Log:
    """A log to compare on."""

    name: str
    config: Path
    """Of the log: inputs, tasks, and how it is trained."""
    digest: str
    """Of all rows."""
    known: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Metrics of the test split that need no training, by who reaches them: the truth, or a given order."""


def find_log(name: str, folder: Path, *, rows: int | None = None) -> Log:
    """A log by name, written into a folder once.

    Args:
        rows: of all splits together; of a public log the last of each split.

    Raises:
        DataError: no such log, more rows than can be compared, or RECMOE_DATA does not name the published files.
    """
    if name not in NAMES:
        raise DataError(f"no log is called {name}; there are {', '.join(NAMES)}")
    if rows is not None and rows > MOST_ROWS["train"]:
        raise DataError(f"simple models read at most {MOST_ROWS['train']:,} rows; give --rows no more, got {rows:,}")
    target = folder / f"{name}-{rows or 'all'}"
    if not target.exists():
        unfinished = target.with_name(f".{target.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        _write(name, unfinished, rows)
        unfinished.rename(target)
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update((target / f"{split}.parquet").read_bytes())
    return Log(name, target / "config.yaml", digest.hexdigest(), _known(target))


def _write(name: str, target: Path, rows: int | None) -> None:
    if name == SYNTHETIC:
        write_synthetic(target, num_rows=rows or SYNTHETIC_ROWS)
        return
    if "RECMOE_DATA" not in os.environ:
        raise DataError(
            f"{name} needs the published files: set RECMOE_DATA to the folder that holds them, or choose --data "
            f"{SYNTHETIC}"
        )
    import_dataset(name, Path(os.environ["RECMOE_DATA"]) / FOLDERS[name], target)
    if rows is not None:
        _cut(target, rows)


def _cut(folder: Path, rows: int) -> None:
    """Keep the last rows of each split; what was known of the whole test split goes."""
    splits = {split: pq.read_table(folder / f"{split}.parquet") for split in SPLITS}
    share = rows / sum(table.num_rows for table in splits.values())
    for split, table in splits.items():
        num_kept = max(1, round(min(share, 1.0) * table.num_rows))
        pq.write_table(table.slice(table.num_rows - num_kept), folder / f"{split}.parquet")
    (folder / "truth.json").unlink(missing_ok=True)


def _known(folder: Path) -> dict[str, dict[str, float]]:
    path = folder / "truth.json"
    if not path.exists():
        return {}
    truth = json.loads(path.read_text(encoding="utf-8"))
    found: dict[str, dict[str, float]] = truth.get("baselines", {BEST: truth})
    return found

"""What all importers need: to find the published file, to place the config."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow as pa

from recmoe.data.splits import Split
from recmoe.errors import DataError


def find_source(source: Path, names: Sequence[str], *, about: str) -> Path:
    """The first of several file names that exists in a folder, or the source itself where it is such a file.

    Raises:
        DataError: nothing is there; says what is expected and where it is published.
    """
    if not source.exists():
        raise DataError(f"{source} does not exist; expected the folder that holds {' or '.join(names)} ({about})")
    folder = source if source.is_dir() else source.parent
    for name in names:
        if (folder / name).is_file():
            return folder / name
    found = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
    raise DataError(f"{folder} holds no {' or '.join(names)} ({about}); found {found}")


def check_columns(path: Path, found: pa.Schema, expected: Sequence[str]) -> None:
    """Refuse a file that lacks a column.

    Raises:
        DataError: names the columns that are missing and those that were found.
    """
    missing = [name for name in expected if name not in found.names]
    if missing:
        raise DataError(
            f"{path} is not the expected file: no column {', '.join(missing)}; found {', '.join(found.names)}"
        )


def random_split(num_rows: int, shares: dict[Split, float], *, seed: int) -> dict[Split, pa.Array]:
    """Row numbers of each split, in file order; who goes where depends on the seed only."""
    assert abs(sum(shares.values()) - 1.0) < 1e-9
    order = np.random.default_rng(seed).permutation(num_rows)
    ends = np.round(np.cumsum(list(shares.values())) * num_rows).astype(np.int64)
    starts = np.concatenate([[0], ends[:-1]])
    return {split: pa.array(np.sort(order[start:end])) for split, start, end in zip(shares, starts, ends, strict=True)}


def place_config(name: str, target: Path) -> Path:
    """Copy the template ``<name>.yaml`` beside the splits; returns the config's path."""
    target.mkdir(parents=True, exist_ok=True)
    path = target / "config.yaml"
    path.write_text(
        (resources.files("recmoe.data.datasets") / f"{name}.yaml").read_text(encoding="utf-8"), encoding="utf-8"
    )
    return path

"""Readers of public data sets: from the published files to Parquet splits and a config that is ready to train."""

from collections.abc import Callable
from pathlib import Path

from recmoe.data.datasets.census import import_census
from recmoe.data.datasets.hillstrom import import_hillstrom
from recmoe.data.datasets.trivago import import_trivago
from recmoe.errors import DataError

IMPORTERS: dict[str, Callable[[Path, Path, int], Path]] = {
    "census": import_census,
    "hillstrom": import_hillstrom,
    "trivago": import_trivago,
}


def import_dataset(name: str, source: Path, target: Path, *, seed: int = 0) -> Path:
    """Write the splits of a data set and its ``config.yaml`` into a folder.

    Args:
        name: census, hillstrom or trivago.
        source: the published file, or the folder that holds it.
        target: folder to write to; made if it is missing.
        seed: of the random part of the split, if the data set has one.

    Returns:
        The path of the config.

    Raises:
        DataError: the name is unknown, or the source is missing or is another file.
    """
    if name not in IMPORTERS:
        raise DataError(f"no data set is called {name}; known are {', '.join(IMPORTERS)}")
    return IMPORTERS[name](source, target, seed)

"""find_days(): the days of a log behind some globs, and how many rows each has."""

import glob
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from recmoe.data.files import find_files, is_data_file
from recmoe.data.loader import DataConfig
from recmoe.data.open_files import open_files
from recmoe.errors import DataError

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Day:
    """The log of one day, or of any other period."""

    name: str
    path: Path
    """A file, or a folder of files."""


def find_days(patterns: Sequence[str]) -> list[Day]:
    """Files and folders behind some globs, a day each, in the order of their names: day=9 comes before day=10.

    Whatever is neither a folder nor a data file is passed over, in silence where its name begins with "." or "_", such
    as ``_SUCCESS``.

    Raises:
        DataError: no day is there, or two days have the same name.
    """
    paths = sorted({Path(name) for pattern in patterns for name in glob.glob(str(Path(pattern).expanduser()))})
    days = sorted((Day(_day_name(path), path) for path in paths if _is_day(path)), key=lambda day: in_order(day.name))
    if not days:
        raise DataError(f"no day matches {', '.join(patterns)}; give a glob of files or folders, such as 'log/day=*'")
    for first, second in pairwise(days):
        if first.name == second.name:
            raise DataError(f"{first.path} and {second.path} are both day {first.name}; give each day one name")
    return days


def num_rows(day: Day, data: DataConfig, *, cache_dir: Path) -> int:
    """Rows of a day; 0 where a folder holds no data file yet, or files hold nothing at all.

    Args:
        data: how files are read.
        cache_dir: where CSV files are converted.

    Raises:
        DataError: a file cannot be read.
    """
    try:
        files = find_files([str(day.path)])
    except DataError:
        return 0
    filled = [path for path in files if path.stat().st_size]
    folder = data.cache_folder(cache_dir)
    opened, _ = open_files(filled, cache_dir=folder, on_error=data.on_error, csv=data.csv)
    return sum(file.num_rows for file in opened)


def in_order(name: str) -> list[tuple[int, int, str]]:
    """A key to sort by: numbers inside a name count as numbers."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def _is_day(path: Path) -> bool:
    if path.name.startswith(("_", ".")):
        return False
    if path.is_dir() or is_data_file(path):
        return True
    _logger.warning("%s is passed over: it is neither a folder nor a data file", path)
    return False


def _day_name(path: Path) -> str:
    return path.name if path.is_dir() else path.name.removesuffix(".gz").rpartition(".")[0]

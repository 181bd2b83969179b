"""find_files: the data files behind files, folders and globs."""

import glob
from collections.abc import Sequence
from pathlib import Path

from recmoe.errors import DataError

PARQUET_SUFFIXES = (".parquet",)
CSV_SUFFIXES = tuple(f"{name}{packed}" for name in (".csv", ".tsv", ".txt") for packed in ("", ".gz"))
TEXT_SUFFIXES = (".txt", ".txt.gz")
"""Of files that are data only where the user says so: others lie beside them, such as a readme.txt."""
JSON_SUFFIXES = tuple(f"{name}{packed}" for name in (".jsonl", ".ndjson") for packed in ("", ".gz"))
SUFFIXES = PARQUET_SUFFIXES + CSV_SUFFIXES + JSON_SUFFIXES


def find_files(patterns: Sequence[str]) -> tuple[Path, ...]:
    """Data files in the order of the patterns, by path within one; a file found twice, by whatever path, is taken once.

    A folder stands for all data files below it. Whatever is neither Parquet nor CSV nor JSON lines, and whatever
    begins with "." or "_" (hidden files, ``_SUCCESS``, ``_temporary``), is passed over unless it is named itself.
    So is text (.txt), unless it is named or the pattern ends like it.

    Raises:
        DataError: a pattern behind which there is no data file.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        files = _behind(pattern)
        if not files:
            raise DataError(f"no data file matches {pattern!r}; {_explanation(pattern)}")
        for file in files:
            found.setdefault(file.resolve(), file)
    return tuple(found.values())


def is_data_file(path: Path) -> bool:
    """Whether the name ends like one of a Parquet, CSV or JSON lines file."""
    return path.name.lower().endswith(SUFFIXES)


def is_csv(path: Path) -> bool:
    """Whether the name ends like one of a CSV file, compressed or not."""
    return path.name.lower().endswith(CSV_SUFFIXES)


def is_json(path: Path) -> bool:
    """Whether the name ends like one of a file of JSON lines, compressed or not."""
    return path.name.lower().endswith(JSON_SUFFIXES)


def _behind(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_dir():
        return _below(path)
    if path.is_file():
        return [path] if is_data_file(path) else []
    files: list[Path] = []
    for match in sorted(Path(name) for name in glob.glob(str(path), recursive=True)):
        if match.is_dir():
            files += _below(match)
        elif _is_meant(match, pattern) and not match.name.startswith(("_", ".")):
            files.append(match)
    return files


def _below(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if _is_meant(path, "")
        and not any(part.startswith(("_", ".")) for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def _is_meant(path: Path, pattern: str) -> bool:
    """Whether a file that a pattern or a folder led to is data."""
    is_text = path.name.lower().endswith(TEXT_SUFFIXES)
    return is_data_file(path) and (not is_text or pattern.lower().endswith(TEXT_SUFFIXES))


def _explanation(pattern: str) -> str:
    path = Path(pattern).expanduser()
    suffixes = ", ".join(SUFFIXES)
    if path.is_file():
        return f"the name of a data file ends in one of {suffixes}"
    if path.is_dir():
        return f"the folder holds no file that ends in one of {suffixes}"
    return "there is no such file or folder; check the path (it counts from the working directory)"

"""Frames of any maker and paths of any form as files that recmoe reads."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recmoe.errors import DataError, RecmoeError


class ArrowStream(Protocol):
    """A frame of another library that Arrow can read, such as one of Polars or DuckDB."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Its rows, by the Arrow PyCapsule interface."""


Rows: TypeAlias = pd.DataFrame | ArrowStream | str | Path | Sequence[str | Path]
"""A frame, or Parquet and CSV files, folders and globs."""

# What an option of the command line is called in Python.
_WORDS = {
    "--run-dir": "run_dir",
    "--resume": "resume=True",
    "--label": "tasks",
    "--leave-out": "leave_out",
    "--shares": "shares",
    "--split": "split",
    "command line": "overrides",
}


@contextmanager
def in_python_words() -> Iterator[None]:
    """Errors of the block name arguments of Python in place of options of the command line."""
    try:
        yield
    except RecmoeError as error:
        error.args = tuple(_translated(part) if isinstance(part, str) else part for part in error.args)
        raise


def as_files(rows: Rows, path: Path, *, what: str = "data") -> list[str]:
    """Paths as they are; a frame is written as Parquet to ``path``.

    Args:
        what: the argument, for errors.

    Raises:
        DataError: a frame that cannot become a table, or something that is neither a frame nor paths.
    """
    if isinstance(rows, str | Path):
        return [str(rows)]
    if isinstance(rows, Sequence) and rows and all(isinstance(part, str | Path) for part in rows):
        return [str(part) for part in rows]
    table = as_table(rows, what=what)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")
    return [str(path)]


def as_table(frame: Any, *, what: str = "data") -> pa.Table:
    """A frame as Arrow; a pandas index stays as a column, unless it only numbers the rows.

    Raises:
        DataError: it is no frame, has two columns of a name, or a column that mixes types.
    """
    try:
        if isinstance(frame, pa.Table):
            table = frame
        elif isinstance(frame, pd.DataFrame):
            table = pa.Table.from_pandas(frame).replace_schema_metadata(None)
        elif hasattr(frame, "__arrow_c_stream__"):
            table = pa.table(frame)
        else:
            raise DataError(
                f"{what}: expected a pandas DataFrame, an Arrow table or paths of files, got {type(frame).__name__}"
            )
    except (pa.ArrowException, ValueError) as error:
        reason = ": ".join(str(part) for part in error.args)
        raise DataError(
            f"{what}: the frame cannot become a table: {reason}; give each column one name and type"
        ) from error
    twice = [name for name in dict.fromkeys(table.column_names) if table.column_names.count(name) > 1]
    if twice:
        raise DataError(f"{what}: two columns are called {twice[0]}; rename one")
    return table


def _translated(message: str) -> str:
    for option, argument in _WORDS.items():
        message = message.replace(option, argument)
    return message

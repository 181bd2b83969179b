"""Rows of a table file that differ from those of another one: which they are, their file, and how it is applied."""

# N rows of a table file, n rows that differ, B bytes of a row

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from recmoe.errors import BundleError
from recmoe.export.delta.copied import copy_file
from recmoe.export.delta.document import AGAIN
from recmoe.export.tensor_header import TensorHeader, read_headers
from recmoe.export.weights import ROWS

NUMBERS = "numbers"
"""Tensor of the numbers of the rows, int32 [n], increasing."""
VALUES = "values"
"""Tensor of their bytes, as the table's file holds them, uint8 [n, B]."""

_BLOCK_BYTES = 2**24
_HEAD_BYTES = 160
_MAX_ROWS = 2**31 - 1


@dataclass(frozen=True)
class RowLayout:
    """Where the rows of a table file are."""

    num_rows: int
    row_bytes: int
    begin: int
    """Bytes before the first row: the head of the safetensors file."""

    @classmethod
    def of(cls, path: Path) -> "RowLayout | None":
        """That of a table file; None where it has no rows, or more than can be numbered.

        Raises:
            BundleError: it cannot be read.
        """
        header = read_headers(path).get(ROWS)
        if header is None or len(header.shape) != 2 or not 0 < header.shape[0] <= _MAX_ROWS or header.num_bytes == 0:
            return None
        num_rows = header.shape[0]
        return cls(num_rows, header.num_bytes // num_rows, path.stat().st_size - header.num_bytes)

    def map(self, path: Path) -> NDArray[np.uint8]:
        """The rows of a file as bytes [N, B], mapped from disk."""
        return np.memmap(path, np.uint8, "r", offset=self.begin, shape=(self.num_rows, self.row_bytes))


def changed_rows(base: Path, new: Path) -> NDArray[np.int32] | None:
    """Numbers of the rows in which two table files differ; None where they differ in more than rows.

    Raises:
        BundleError: one of them cannot be read.
    """
    layout = RowLayout.of(new)
    if layout is None or layout != RowLayout.of(base) or _head(base, layout) != _head(new, layout):
        return None
    old_NB, new_NB = layout.map(base), layout.map(new)
    block = max(1, _BLOCK_BYTES // layout.row_bytes)
    found = [
        start + np.flatnonzero((old_NB[start : start + block] != new_NB[start : start + block]).any(axis=1))
        for start in range(0, layout.num_rows, block)
    ]
    return np.concatenate(found).astype(np.int32)


def rows_bytes(new: Path, num_changed: int) -> int:
    """About how large the file of so many rows is."""
    layout = RowLayout.of(new)
    assert layout is not None
    return _HEAD_BYTES + num_changed * (layout.row_bytes + np.dtype(np.int32).itemsize)


def write_rows(new: Path, numbers_n: NDArray[np.int32], target: Path) -> None:
    """Write some rows of a table file."""
    layout = RowLayout.of(new)
    assert layout is not None
    values_nB = np.ascontiguousarray(layout.map(new)[numbers_n])
    safetensors.numpy.save_file({NUMBERS: numbers_n, VALUES: values_nB}, target)


def apply_rows(base: Path, rows: Path, target: Path) -> None:
    """Make a table file from another one and the rows that differ. Only what fits the base is written.

    Raises:
        BundleError: the rows are not of such a table, or their numbers are out of range or do not increase.
    """
    layout = RowLayout.of(base)
    if layout is None:
        raise BundleError(f"{base} holds no rows of a table that could be changed; {AGAIN}")
    headers = read_headers(rows)
    values = headers.get(VALUES)
    num_changed = values.shape[0] if values is not None and values.shape else 0
    expected = {
        NUMBERS: TensorHeader((num_changed,), "int32"),
        VALUES: TensorHeader((num_changed, layout.row_bytes), "uint8"),
    }
    if headers != expected:
        raise BundleError(
            f"{rows} is damaged: it does not hold numbers and values of rows of {layout.row_bytes} bytes, as those of "
            f"{base} are; {AGAIN}"
        )
    try:
        tensors = safetensors.numpy.load_file(rows)
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{rows} cannot be read: {error}; {AGAIN}") from error
    numbers_n, values_nB = tensors[NUMBERS], tensors[VALUES]
    _check_numbers(rows, numbers_n, layout.num_rows)
    copy_file(base, target)
    # Neighbours are written at once. Not through a map: a full disk would end the process.
    ends = np.flatnonzero(np.diff(numbers_n) != 1) + 1
    with target.open("r+b") as file:
        for start, end in zip([0, *ends.tolist()], [*ends.tolist(), num_changed], strict=True):
            if start < end:
                file.seek(layout.begin + int(numbers_n[start]) * layout.row_bytes)
                file.write(values_nB[start:end].data)


def _check_numbers(rows: Path, numbers_n: NDArray[np.int32], num_rows: int) -> None:
    outside = numbers_n[(numbers_n < 0) | (numbers_n >= num_rows)]
    if outside.size:
        raise BundleError(f"{rows} names row {outside[0]}, its table has {num_rows:,} rows; {AGAIN}")
    wrong = np.flatnonzero(numbers_n[1:] <= numbers_n[:-1])
    if wrong.size:
        before, number = numbers_n[wrong[0]], numbers_n[wrong[0] + 1]
        raise BundleError(f"{rows} names row {number} after row {before}: the numbers must increase; {AGAIN}")


def _head(path: Path, layout: RowLayout) -> bytes:
    with path.open("rb") as file:
        return file.read(layout.begin)

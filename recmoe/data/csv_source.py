"""CsvSource: the bytes of a CSV file, unpacked, and how they become text."""

import codecs
import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from recmoe.errors import DataError

SAMPLE_BYTES = 1 << 20
"""Bytes from the beginning that are looked at."""
_NOT_TEXT = "the text is not UTF-8, or not in data.csv.encoding; name its encoding there, such as windows-1252"
_GZIP = b"\x1f\x8b"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class CsvSource:
    """A file of text, whatever its name: packed by gzip or not, in one of several encodings."""

    path: Path
    is_packed: bool
    encoding: str
    sample: str
    """Its beginning."""
    is_whole: bool
    """Whether the sample is the whole file."""

    def open(self) -> pa.NativeFile:
        """The unpacked bytes."""
        return pa.input_stream(str(self.path), compression="gzip" if self.is_packed else None)


def open_csv_source(path: Path, encoding: str | None) -> CsvSource:
    """Look at the beginning of a file.

    Args:
        encoding: of the text; recognised by default.

    Raises:
        DataError: the file cannot be read or unpacked, or is no text in an encoding that is known.
    """
    with readable(path):
        is_packed = is_gzip(path)
        with pa.input_stream(str(path), compression="gzip" if is_packed else None) as stream:
            data = stream.read(SAMPLE_BYTES)
            is_whole = len(data) < SAMPLE_BYTES or not stream.read(1)
    found = encoding or _encoding_of(path, data)
    # Bytes that are wrong are reported with row and column when the file is read.
    decoder = codecs.getincrementaldecoder(found)(errors="replace")
    return CsvSource(path, is_packed, found, decoder.decode(data).removeprefix("\ufeff"), is_whole)


def is_gzip(path: Path) -> bool:
    """Whether a file is packed, whatever its name says."""
    with path.open("rb") as file:
        return file.read(2) == _GZIP


def _encoding_of(path: Path, data: bytes) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    if b"\0" not in data:
        return "utf-8"
    # Most characters of UTF-16 without a mark are ASCII: every other byte is zero.
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        places = data[first : len(data) // 2 * 2 : 2]
        if places.count(0) > 0.3 * len(places) and data[1 - first :: 2].count(0) < 0.05 * len(places):
            return encoding
    raise DataError(f"{path}: not a text file, it holds zero bytes; if it is one, name data.csv.encoding")


@contextlib.contextmanager
def readable(path: Path, names: Sequence[str] = ()) -> Iterator[None]:
    """Errors of a reader become a DataError with the column's name, and what to do."""
    try:
        yield
    except UnicodeError as error:
        raise DataError(f"{path}: {_NOT_TEXT} ({error})") from error
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, names, error) from error


def _unreadable(path: Path, names: Sequence[str], error: Exception) -> DataError:
    message = str(error)
    cell = re.fullmatch(r"In CSV column #(\d+): (?:Row #(\d+): )?(.*)", message, flags=re.DOTALL)
    if cell is None:
        return DataError(f"{path}: not a readable CSV file: {message}; mend the file, or set data.on_error to skip")
    column = names[int(cell[1])] if int(cell[1]) < len(names) else f"number {int(cell[1]) + 1}"
    row = "" if cell[2] is None else f", row {cell[2]} (the first line is row 1)"
    what = _NOT_TEXT if "invalid UTF8" in cell[3] else cell[3]
    return DataError(f"{path}{row}, column {column!r}: {what}")

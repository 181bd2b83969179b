"""EncodedCache: what the FeatureEncoder makes of a split, made once and kept on disk."""

# N rows of a split, B rows of a batch

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

import recmoe
from recmoe.data.encoded_rows import ROWS_FILE, EncodedRows, list_file
from recmoe.data.parquet import ParquetStream
from recmoe.data.row_format import RowFormat
from recmoe.errors import DataError
from recmoe.features.batch import Batch
from recmoe.features.encoder import FeatureEncoder

LOG = logging.getLogger(__name__)

VERSION = 2
"""Raise it when the same rows would be written in another form."""
MANIFEST = "manifest.json"


class EncodedCache:
    """Encoded splits, a folder each, named by all that decides its bytes::

    encoded/4f1d…/manifest.json    what it was made from; size and hash of every file
    encoded/4f1d…/rows.bin         a record per row (``RowFormat``)
    encoded/4f1d…/list_0.bin …     the ids of each list key, the ages of each sequence that has times

    A folder appears under its name only when complete. Another encoder, or files that were written to
    since, make another name.

    Args:
        folder: of the cache; made when something is written.
        encoder: encodes all splits.
    """

    def __init__(self, folder: Path, encoder: FeatureEncoder) -> None:
        self.folder = folder
        self._encoder = encoder
        self._format = RowFormat.of_encoder(encoder)

    def path(self, stream: ParquetStream) -> Path:
        """The folder of a split."""
        text = json.dumps(self._about(stream), sort_keys=True)
        return self.folder / hashlib.sha256(text.encode()).hexdigest()[:24]

    def open(self, stream: ParquetStream, *, is_thorough: bool = False) -> EncodedRows | None:
        """The rows of a split if they are here and whole; damage is told, and the same as nothing.

        Args:
            is_thorough: compare the hash of every file too, not only its size.
        """
        path = self.path(stream)
        if not path.exists():
            return None
        problem = _problem(path, self._about(stream), is_thorough=is_thorough)
        if problem is not None:
            LOG.warning("%s: the encoded rows are damaged and are not used: %s", path, problem)
            return None
        return EncodedRows(path, self._format)

    def ensure(self, stream: ParquetStream, batches: Callable[[], Iterator[Batch]]) -> EncodedRows:
        """The rows of a split, written now if they are not here; other processes that ask for them wait.

        Args:
            batches: starts to encode all rows in the order of the files; called only if they are needed.

        Raises:
            DataError: the disk is full or cannot be written to.
        """
        path = self.path(stream)
        with contextlib.ExitStack() as stack:
            with self._writing():
                self.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(self.folder / f".{path.name}.lock"))
            found = self.open(stream, is_thorough=True)
            if found is None:
                self._write(path, stream, batches())
                found = EncodedRows(path, self._format)
        return found

    def num_bytes(self, stream: ParquetStream) -> int:
        """Bytes of a split's records, its lists left out."""
        return stream.num_rows * self._format.dtype.itemsize

    def _about(self, stream: ParquetStream) -> dict[str, Any]:
        return {
            "version": VERSION,
            "recmoe": recmoe.__version__,
            "encoder": self._encoder.fingerprint,
            "source": stream.revision,
            "num_rows": stream.num_rows,
            "record": str(self._format.dtype.descr),
        }

    def _write(self, path: Path, stream: ParquetStream, batches: Iterator[Batch]) -> None:
        part = self.folder / f".{path.name}.part"
        try:
            with self._writing():
                for left in (path, part):
                    shutil.rmtree(left, ignore_errors=True)
                part.mkdir()
            files = self._write_rows(part, stream, batches)
            manifest = {**self._about(stream), "files": files}
            with self._writing():
                (part / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
                os.replace(part, path)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _write_rows(self, part: Path, stream: ParquetStream, batches: Iterator[Batch]) -> dict[str, dict[str, Any]]:
        """Size and SHA-256 of every file by name."""
        with contextlib.ExitStack() as stack:
            with self._writing():
                rows = stack.enter_context(_Writer(part / ROWS_FILE))
                lists = [
                    stack.enter_context(_Writer(part / list_file(place)))
                    for place in range(len(self._format.list_types))
                ]
                # A disk that is too small is found now and not after an hour.
                rows.reserve(self.num_bytes(stream))
            num_ids = [0] * len(lists)
            for batch in batches:
                records_B, ids = self._format.pack(batch, num_ids)
                with self._writing():
                    rows.write(records_B)
                    for place, written in enumerate(ids):
                        lists[place].write(written)
                        num_ids[place] += len(written)
            with self._writing():
                stack.close()
        assert rows.num_bytes == self.num_bytes(stream), "batches are not the rows of the stream"
        return {writer.path.name: {"size": writer.num_bytes, "sha256": writer.sha256} for writer in (rows, *lists)}

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                f"{self.folder}: cannot keep the encoded rows ({error}); set data.cache_dir to a folder with room, "
                "or data.encoded_cache to off"
            ) from error


class _Writer:
    """A file that is written once, and its hash."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_bytes = 0
        self._hash = hashlib.sha256()
        self._file: BinaryIO = path.open("wb")

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def reserve(self, num_bytes: int) -> None:
        if num_bytes:
            os.posix_fallocate(self._file.fileno(), 0, num_bytes)

    def write(self, values: NDArray[Any]) -> None:
        content = values.view(np.uint8).data
        self._file.write(content)
        self._hash.update(content)
        self.num_bytes += len(content)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def _problem(path: Path, about: dict[str, Any], *, is_thorough: bool) -> str | None:
    """What is wrong with a split's folder, or None."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files = manifest.pop("files")
        if manifest != about:
            return f"{MANIFEST} tells of other rows"
        for name, expected in files.items():
            size = (path / name).stat().st_size
            if size != expected["size"]:
                return f"{name} has {size} bytes, not {expected['size']}"
            if is_thorough and _sha256(path / name) != expected["sha256"]:
                return f"the content of {name} has changed"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

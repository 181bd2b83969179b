"""parquet_copy: what another kind of file becomes, made once."""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recmoe.errors import DataError


def parquet_copy(path: Path, *, cache_dir: Path, settings: tuple[object, ...], write: Callable[[Path], None]) -> Path:
    """The Parquet file with the rows of another file; made now, or by an earlier call.

    It is keyed by path, size, time of change and settings, and appears under its name only when complete: processes
    that convert the same file at once do the work twice and both succeed.

    Args:
        settings: all that decides what becomes of the file.
        write: writes the copy under the name it is given.

    Raises:
        DataError: from ``write``, or the folder cannot be written to.
    """
    stat = path.stat()
    parts = (*settings, path.resolve(), stat.st_size, stat.st_mtime_ns)
    key = hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]
    target = cache_dir / f"{path.name.split('.')[0]}-{key}.parquet"
    if _is_whole(target):
        return target
    temporary = cache_dir / f".{target.name}.{uuid.uuid4().hex}"
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        write(temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise DataError(
            f"{cache_dir}: cannot write the Parquet copy of {path} ({error}); set data.cache_dir to a folder with room"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return target


def _is_whole(target: Path) -> bool:
    try:
        pq.read_metadata(target)
    except (OSError, pa.ArrowException):
        return False
    return True

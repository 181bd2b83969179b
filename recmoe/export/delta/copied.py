"""copy_file and link_or_copy: files of a bundle in another place, at as little cost as the file system allows."""

import errno
import os
import shutil
from pathlib import Path

_NOT_HERE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)
"""What systems say that cannot copy inside the kernel, or cannot link, between these two places."""


def copy_file(source: Path, target: Path) -> None:
    """Copy a file to a place where there is none; blocks are shared where the file system can."""
    with source.open("rb") as reader, target.open("xb") as writer:
        try:
            while os.copy_file_range(reader.fileno(), writer.fileno(), 2**30):
                pass
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
        # Goes on where the kernel has stopped, which is the end as a rule.
        shutil.copyfileobj(reader, writer)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or make a copy where that cannot be."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (*_NOT_HERE, errno.EMLINK, errno.EACCES):
            raise
        copy_file(source, target)

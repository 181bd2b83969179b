"""apply_delta: makes the bundle of a delta from the one that it builds on, and proves that it is that one."""

import shutil
from pathlib import Path

from recmoe.errors import BundleError
from recmoe.export.contents import MANIFEST, file_sizes
from recmoe.export.delta.copied import copy_file, link_or_copy
from recmoe.export.delta.document import AGAIN, BUNDLE, Delta, rows_file
from recmoe.export.delta.rows import apply_rows
from recmoe.export.manifest import Manifest, sha256_of


def apply_delta(delta: Delta, base: Path, target: Path, *, links: bool = False) -> Manifest:
    """Write the bundle that a delta makes of its base; every file has the hash that its manifest says.

    Args:
        base: the folder of the bundle that it builds on.
        target: the folder to make; on an error what is in it is of no use.
        links: whether files that both have may be one file on the disk.

    Raises:
        BundleError: the delta is damaged, the base is another bundle or damaged, or the disk is full.
    """
    delta.verify()
    earlier = Manifest.read(base)
    _check_base(delta, base, earlier)
    content, files = delta.content, delta.manifest.files
    try:
        target.mkdir(parents=True)
        for name in files:
            (target / name).parent.mkdir(exist_ok=True)
        for name in content.same:
            (link_or_copy if links else copy_file)(base / name, target / name)
        for name, rows in content.rows.items():
            apply_rows(base / rows.base, delta.path / rows_file(name), target / name)
        for name in (MANIFEST, *content.whole):
            shutil.copyfile(delta.path / BUNDLE / name, target / name)
        _check_made(delta, base, earlier, target)
    except OSError as error:
        raise BundleError(
            f"{delta.path} could not be applied to {base}: {error.strerror or error}; nothing was left: free some "
            "space or mend the cause, then do it again"
        ) from error
    return delta.manifest


def _check_base(delta: Delta, base: Path, earlier: Manifest) -> None:
    """Whether a bundle is the one that a delta builds on, with the files that it takes from it."""
    if earlier.digest != delta.base.digest:
        raise BundleError(
            f"{delta.path} builds on the bundle {delta.base.digest[:12]} of {delta.base.name} version "
            f"{delta.base.version}, {base} is {earlier.digest[:12]}; {AGAIN}"
        )
    sizes, files, content = file_sizes(base), delta.manifest.files, delta.content
    for name in content.same:
        if earlier.files.get(name) != files[name]:
            raise BundleError(f"{delta.path} takes {name} from {base}, which has another one; {AGAIN}")
    for name, rows in content.rows.items():
        if rows.base not in earlier.files or earlier.files[rows.base].size != files[name].size:
            raise BundleError(f"{delta.path} changes rows of {rows.base}, of which {base} has none so large; {AGAIN}")
    for name in (*content.same, *(rows.base for rows in content.rows.values())):
        if sizes.get(name) != earlier.files[name].size:
            raise BundleError(
                f"{base / name} is damaged: {sizes.get(name, 0)} bytes, {earlier.files[name].size} were written; "
                "copy or export the bundle again"
            )


def _check_made(delta: Delta, base: Path, earlier: Manifest, target: Path) -> None:
    """Compare the bundle that was made with its hashes, and where one differs say what is at fault."""
    try:
        delta.manifest.verify(target)
    except BundleError as error:
        content = delta.content
        for name in (*content.same, *(rows.base for rows in content.rows.values())):
            if sha256_of(base / name) != earlier.files[name].sha256:
                raise BundleError(
                    f"{base / name} is damaged: its content has changed; copy or export the bundle again"
                ) from error
        raise BundleError(
            f"{delta.path} does not make of {base} the bundle that it says: {_within(target, error)}; {AGAIN}"
        ) from error


def _within(target: Path, error: BundleError) -> str:
    """What is wrong with a file of a folder that will be removed."""
    return str(error).replace(f"{target}/", "").partition(";")[0]

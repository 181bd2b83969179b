"""DeltaPlan: how a bundle would travel to where another one lies, how many bytes that takes, and the delta itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recmoe.errors import BundleError
from recmoe.export.contents import MANIFEST, TABLES
from recmoe.export.delta.copied import link_or_copy
from recmoe.export.delta.document import (
    BUNDLE,
    ROWS_FOLDER,
    ChangedRows,
    Delta,
    DeltaBase,
    DeltaContent,
    rows_file,
)
from recmoe.export.delta.rows import changed_rows, rows_bytes, write_rows
from recmoe.export.manifest import Manifest, sha256_of
from recmoe.export.weights import read_index
from recmoe.model.stored_names import current_name


@dataclass(frozen=True)
class DeltaPlan:
    """Which files of a bundle another one has, and which table files differ in rows alone."""

    bundle: Path
    manifest: Manifest
    same: tuple[str, ...]
    whole: tuple[str, ...]
    rows: Mapping[str, tuple[str, NDArray[np.int32]]]
    """By table file: the base's file, and the numbers of the rows that differ."""

    @classmethod
    def of(cls, bundle: Path, base: Path) -> "DeltaPlan":
        """The plan for a bundle on another one.

        Raises:
            BundleError: the manifest of one is damaged, or a table file of the base has changed.
        """
        manifest, earlier = Manifest.read(bundle), Manifest.read(base)
        same = tuple(name for name, entry in manifest.files.items() if earlier.files.get(name) == entry)
        rows: dict[str, tuple[str, NDArray[np.int32]]] = {}
        for name, before in _partners(bundle, base).items():
            if name in same:
                continue
            if sha256_of(base / before) != earlier.files[before].sha256:
                raise BundleError(f"{base / before} is damaged: its content has changed; copy or export it again")
            numbers_n = changed_rows(base / before, bundle / name)
            if numbers_n is not None and rows_bytes(bundle / name, len(numbers_n)) < manifest.files[name].size:
                rows[name] = (before, numbers_n)
        whole = tuple(name for name in manifest.files if name not in same and name not in rows)
        return cls(bundle, manifest, same, whole, rows)

    @property
    def num_bytes(self) -> int:
        """About how many bytes travel."""
        whole = sum(self.manifest.files[name].size for name in self.whole)
        return whole + sum(rows_bytes(self.bundle / name, len(numbers_n)) for name, (_, numbers_n) in self.rows.items())

    @property
    def whole_bytes(self) -> int:
        """How many travel without a base."""
        return sum(entry.size for entry in self.manifest.files.values())

    def write(self, target: Path, base: DeltaBase) -> Delta:
        """Write the delta into a folder that is made for it.

        Raises:
            BundleError: the disk is full.
        """
        try:
            return self._write(target, base)
        except OSError as error:
            raise BundleError(
                f"{target} could not be written: {error.strerror or error}; free some space, or set TMPDIR to a folder "
                "that has some"
            ) from error

    def _write(self, target: Path, base: DeltaBase) -> Delta:
        (target / ROWS_FOLDER).mkdir(parents=True)
        for name in (MANIFEST, *self.whole):
            (target / BUNDLE / name).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(self.bundle / name, target / BUNDLE / name)
        rows = {}
        for name, (before, numbers_n) in self.rows.items():
            file = target / rows_file(name)
            write_rows(self.bundle / name, numbers_n, file)
            rows[name] = ChangedRows(before, file.stat().st_size, sha256_of(file))
        DeltaContent(base, self.manifest.digest, self.same, self.whole, rows).write(target)
        return Delta.read(target)


def _partners(bundle: Path, base: Path) -> dict[str, str]:
    """Table files of a bundle by which of the base's hold the same rows of the same table, whatever is in them."""
    earlier = {current_name(table): files for table, files in read_index(base).items()}
    return {
        f"{TABLES}/{file}": f"{TABLES}/{before}"
        for table, files in read_index(bundle).items()
        for file, before in zip(files, earlier.get(current_name(table), ()), strict=False)
    }

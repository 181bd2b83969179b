"""Manifest: the list of a bundle's files, by which a damaged or strange one is told apart."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, NonNegativeInt, TypeAdapter

from recmoe.errors import BundleError
from recmoe.export.contents import ENCODER, MANIFEST, REQUIRED, TABLES, file_sizes, name_fault, shown
from recmoe.json_document import checked, read_object

FORMAT = "recmoe-bundle"
FORMAT_VERSION = 2

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A sha256 in hexadecimal."""

_AGAIN = "copy or export the bundle again"
_OWN_HASH = "sha256"
"""Key of the hash of the manifest itself."""


@dataclass(frozen=True)
class FileEntry:
    """One file as it was written."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    size: NonNegativeInt
    """Bytes."""
    sha256: Digest


@dataclass(frozen=True)
class Manifest:
    """What a bundle is and which files it is made of.

    Example::

        {"format": "recmoe-bundle", "format_version": 1, "name": "shop", "digest": "3f2a…", …
         "files": {"config.json": {"size": 4211, "sha256": "9c1d…"}, …}}
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    name: str
    created_at: str
    """UTC, ISO 8601."""
    recmoe_version: str
    schema_fingerprint: str
    """Of the encoder: schema, vocabularies, statistics."""
    tasks: tuple[str, ...]
    digest: str
    """sha256 over paths and hashes of the files: equal for equal models, whenever they were written."""
    files: dict[str, FileEntry]
    """By path relative to the bundle, with slashes."""
    packages: dict[str, str] = field(default_factory=dict)
    """Other packages whose gates, experts or architecture it is made of, with their versions."""

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """The manifest of a bundle, all of whose files lie in the folder and hold data alone.

        Raises:
            BundleError: there is none, it is damaged, it is of a format that this version cannot read, or it lists a
                file that no bundle has.
        """
        path = directory / MANIFEST
        if not directory.exists():
            raise BundleError(f"there is no folder {directory}; name a run, a bundle or models:/NAME@ALIAS")
        if path.is_symlink():
            raise BundleError(f"{path} is a symbolic link; a bundle holds files alone: {_AGAIN}")
        if not path.is_file():
            raise BundleError(f"{directory} is no bundle: it has no {MANIFEST}; give the folder that export wrote")
        try:
            document = read_object(path.read_bytes())
            # Bundles of earlier versions have none.
            is_whole = document.pop(_OWN_HASH, None) in (None, hash_of(document))
            found = (document.pop("format"), document.pop("format_version"))
        except (ValueError, KeyError) as error:
            raise BundleError(f"{path} is damaged: it cannot be read; {_AGAIN}") from error
        if found != (FORMAT, FORMAT_VERSION):
            raise BundleError(
                f"{path} is of format {found[0]} version {found[1]}, this recmoe reads {FORMAT} version "
                f"{FORMAT_VERSION}; export the model again with this version"
            )
        if not is_whole:
            raise BundleError(f"{path} is damaged: its content has changed; {_AGAIN}")
        manifest = cls._of(document, path)
        if digest_of(manifest.files) != manifest.digest:
            raise BundleError(f"{path} is damaged: its digest does not fit its files; {_AGAIN}")
        return manifest

    @classmethod
    def _of(cls, document: Mapping[str, Any], path: Path) -> "Manifest":
        try:
            manifest = checked(_MANIFEST, document)
        except ValueError as error:
            raise BundleError(f"{path} is damaged: {error}; {_AGAIN}") from error
        for name in manifest.files:
            if (fault := name_fault(name)) is not None:
                raise BundleError(f"{path} lists {shown(name)}: {fault}; do not load it, {_AGAIN}")
        for name, entry in manifest.files.items():
            if name.startswith(f"{TABLES}/") and name != f"{TABLES}/{entry.sha256}.safetensors":
                raise BundleError(f"{path} lists {name}, whose content is not what its name says; {_AGAIN}")
        return manifest

    def write(self, directory: Path) -> None:
        """Write it into the folder of its bundle."""
        document = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        with (directory / MANIFEST).open("w", encoding="utf-8") as file:
            json.dump({**document, _OWN_HASH: hash_of(document)}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())

    def verify(self, directory: Path) -> None:
        """Compare every file of the folder with its hash.

        Raises:
            BundleError: one differs, is missing, is not listed or is no plain file; the first is named.
        """
        sizes = file_sizes(directory)
        sizes.pop(MANIFEST, None)
        for name in (*REQUIRED, f"{ENCODER}/encoder.json", *self.files):
            if name not in sizes:
                raise BundleError(f"{directory / name} is missing; {_AGAIN}")
        for name in sizes.keys() - self.files.keys():
            raise BundleError(f"{directory / name} is not listed in {MANIFEST}; remove it, or {_AGAIN}")
        check_entries(directory, self.files, sizes, again=_AGAIN)


_MANIFEST = TypeAdapter(Manifest)


def check_entries(directory: Path, entries: Mapping[str, FileEntry], sizes: Mapping[str, int], *, again: str) -> None:
    """BundleError at the first file of a folder that is of another size or hash.

    Args:
        sizes: of the files that are there.
        again: what to do about it.
    """
    for name, entry in entries.items():
        path = directory / name
        if sizes[name] != entry.size:
            raise BundleError(f"{path} is damaged: {sizes[name]} bytes, {entry.size} were written; {again}")
        if sha256_of(path) != entry.sha256:
            raise BundleError(f"{path} is damaged: its content has changed; {again}")


def hash_of(document: Mapping[str, Any]) -> str:
    """What a document keeps of itself: it shows that the content has not changed by accident."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def list_files(directory: Path) -> dict[str, FileEntry]:
    """Size and hash of every file of a bundle's folder, in the order of their paths."""
    return {
        name: FileEntry(size=size, sha256=sha256_of(directory / name)) for name, size in file_sizes(directory).items()
    }


def digest_of(files: Mapping[str, FileEntry]) -> str:
    """One hash for a set of files."""
    lines = "".join(f"{entry.sha256}  {name}\n" for name, entry in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Hash of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

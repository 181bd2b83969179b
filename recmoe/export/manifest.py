"""Manifest: the list of a bundle's files, by which a damaged or strange one is told apart."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from recmoe.errors import BundleError

FORMAT = "recmoe-bundle"
FORMAT_VERSION = 2
FILE_NAME = "manifest.json"


@dataclass(frozen=True)
class FileEntry:
    """One file as it was written."""

    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a bundle is and which files it is made of.

    Example::

        {"format": "recmoe-bundle", "format_version": 1, "name": "shop", "digest": "3f2a…", …
         "files": {"config.json": {"size": 4211, "sha256": "9c1d…"}, …}}
    """

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
        """The manifest of a bundle.

        Raises:
            BundleError: there is none, it is damaged, or it is of a format that this version cannot read.
        """
        path = directory / FILE_NAME
        if not directory.exists():
            raise BundleError(f"there is no folder {directory}; name a run, a bundle or models:/NAME@ALIAS")
        if not path.is_file():
            raise BundleError(f"{directory} is no bundle: it has no {FILE_NAME}; give the folder that export wrote")
        try:
            document = json.loads(path.read_bytes())
            found = (document.pop("format"), document.pop("format_version"))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise BundleError(f"{path} is damaged: it cannot be read; copy or export the bundle again") from error
        if found != (FORMAT, FORMAT_VERSION):
            raise BundleError(
                f"{path} is of format {found[0]} version {found[1]}, this recmoe reads {FORMAT} version "
                f"{FORMAT_VERSION}; export the model again with this version"
            )
        try:
            files = {name: FileEntry(**entry) for name, entry in document.pop("files").items()}
            manifest = cls(**{**document, "tasks": tuple(document["tasks"]), "files": files})
        except (KeyError, AttributeError, TypeError) as error:
            raise BundleError(f"{path} is damaged: {error}; copy or export the bundle again") from error
        if digest_of(files) != manifest.digest:
            raise BundleError(f"{path} is damaged: its digest does not fit its files; copy or export the bundle again")
        return manifest

    def write(self, directory: Path) -> None:
        """Write it into the folder of its bundle."""
        document = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        with (directory / FILE_NAME).open("w", encoding="utf-8") as file:
            json.dump(document, file, indent=2)
            file.flush()
            os.fsync(file.fileno())

    def verify(self, directory: Path) -> None:
        """Compare every file with its hash; BundleError names the first that differs."""
        for name, entry in self.files.items():
            path = directory / name
            if not path.is_file():
                raise BundleError(f"{path} is missing; copy or export the bundle again")
            size = path.stat().st_size
            if size != entry.size:
                raise BundleError(
                    f"{path} is damaged: {size} bytes, {entry.size} were written; copy or export the bundle again"
                )
            if sha256_of(path) != entry.sha256:
                raise BundleError(f"{path} is damaged: its content has changed; copy or export the bundle again")


def list_files(directory: Path) -> dict[str, FileEntry]:
    """Size and hash of every file below a folder, in the order of their paths."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        path.relative_to(directory).as_posix(): FileEntry(size=path.stat().st_size, sha256=sha256_of(path))
        for path in paths
    }


def digest_of(files: dict[str, FileEntry]) -> str:
    """One hash for a set of files."""
    lines = "".join(f"{entry.sha256}  {name}\n" for name, entry in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Hash of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

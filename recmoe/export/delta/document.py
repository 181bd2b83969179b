"""Delta: what a delta holds and which bundle it builds on, read from its delta.json and held to its files."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, NonNegativeInt, TypeAdapter

from recmoe.errors import BundleError
from recmoe.export.contents import FOLDERS, MANIFEST, TABLE_FILE, TABLES, file_sizes, shown
from recmoe.export.manifest import Digest, FileEntry, Manifest, check_entries, hash_of
from recmoe.json_document import checked, read_object

DELTA = "delta.json"
BUNDLE = "bundle"
"""Folder of the new bundle's manifest and of its files that travel whole."""
ROWS_FOLDER = "rows"
_FOLDERS = frozenset({BUNDLE, ROWS_FOLDER, *(f"{BUNDLE}/{name}" for name in FOLDERS)})

FORMAT = "recmoe-delta"
FORMAT_VERSION = 1

AGAIN = "register the bundle again"
_OWN_HASH = "sha256"


@dataclass(frozen=True)
class DeltaBase:
    """The registered version that a delta builds on."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    name: str
    version: Annotated[str, Field(pattern=r"^[0-9]{1,18}$")]
    digest: Digest
    """Of its bundle."""


@dataclass(frozen=True)
class ChangedRows:
    """A table file that is one of the base's, but for some rows."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    base: str
    """The base's file, by its path in the bundle."""
    size: NonNegativeInt
    """Bytes of the file that holds the rows."""
    sha256: Digest


@dataclass(frozen=True)
class DeltaContent:
    """What delta.json says: every file of the new bundle is in one of three lists.

    Example::

        {"format": "recmoe-delta", "format_version": 1,
         "base": {"name": "shop", "version": "1", "digest": "3f2a…"}, "digest": "77c0…",
         "same": ["config.json", …], "whole": ["dense.safetensors", …],
         "rows": {"tables/9c1d….safetensors": {"base": "tables/3f2a….safetensors", "size": 5320, "sha256": "01ab…"}}}
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    base: DeltaBase
    digest: Digest
    """Of the bundle that it makes."""
    same: tuple[str, ...]
    """Files that the base has."""
    whole: tuple[str, ...]
    """Files that lie in ``bundle/``."""
    rows: dict[str, ChangedRows]
    """Table files of which the rows that differ lie in ``rows/``, under the same file name."""

    def write(self, directory: Path) -> None:
        """Write it into the folder of its delta."""
        document = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        text = json.dumps({**document, _OWN_HASH: hash_of(document)}, indent=2)
        (directory / DELTA).write_text(text, encoding="utf-8")


_CONTENT = TypeAdapter(DeltaContent)


@dataclass(frozen=True)
class Delta:
    """A delta in a folder; its documents have been read, its other files have not."""

    path: Path
    content: DeltaContent
    manifest: Manifest
    """Of the bundle that it makes."""

    @classmethod
    def read(cls, path: Path) -> "Delta":
        """The delta of a folder.

        Raises:
            BundleError: its documents are missing, damaged, of another format, or contradict each other.
        """
        file = path / DELTA
        for name in (DELTA, f"{BUNDLE}/{MANIFEST}"):
            if (path / name).is_symlink() or not (path / name).is_file():
                raise BundleError(f"{path} is no delta: it has no file {name}; {AGAIN}")
        try:
            document = read_object(file.read_bytes())
            is_whole = document.pop(_OWN_HASH) == hash_of(document)
            found = (document.pop("format"), document.pop("format_version"))
        except (ValueError, KeyError) as error:
            raise BundleError(f"{file} is damaged: it cannot be read; {AGAIN}") from error
        if found != (FORMAT, FORMAT_VERSION):
            raise BundleError(
                f"{file} is of format {shown(str(found[0]))} version {shown(str(found[1]))}, this recmoe reads "
                f"{FORMAT} version {FORMAT_VERSION}; {AGAIN} with this version"
            )
        if not is_whole:
            raise BundleError(f"{file} is damaged: its content has changed; {AGAIN}")
        try:
            content = checked(_CONTENT, document)
        except ValueError as error:
            raise BundleError(f"{file} is damaged: {error}; {AGAIN}") from error
        manifest = Manifest.read(path / BUNDLE)
        _check_lists(file, content, manifest)
        return cls(path, content, manifest)

    @property
    def base(self) -> DeltaBase:
        """What it builds on."""
        return self.content.base

    @property
    def digest(self) -> str:
        """Of the bundle that it makes."""
        return self.manifest.digest

    @property
    def num_bytes(self) -> int:
        """Of its files, as they travel."""
        documents = sum((self.path / name).stat().st_size for name in (DELTA, f"{BUNDLE}/{MANIFEST}"))
        return documents + sum(entry.size for entry in self.held.values())

    @property
    def held(self) -> Mapping[str, FileEntry]:
        """The files that it holds beside its documents, by their paths in its folder."""
        whole = {f"{BUNDLE}/{name}": self.manifest.files[name] for name in self.content.whole}
        rows = {rows_file(name): FileEntry(one.size, one.sha256) for name, one in self.content.rows.items()}
        return {**whole, **rows}

    def verify(self) -> None:
        """Compare every file of the folder with its hash; nothing else may be there.

        Raises:
            BundleError: one differs, is missing, is not listed or is no plain file; the first is named.
        """
        sizes = file_sizes(self.path, folders=_FOLDERS)
        for name in (DELTA, f"{BUNDLE}/{MANIFEST}"):
            sizes.pop(name, None)
        for name in self.held.keys() - sizes.keys():
            raise BundleError(f"{self.path / name} is missing; {AGAIN}")
        for name in sizes.keys() - self.held.keys():
            raise BundleError(f"{self.path / name} is not listed in {DELTA}; remove it, or {AGAIN}")
        check_entries(self.path, self.held, sizes, again=AGAIN)


def rows_file(name: str) -> str:
    """Where the rows of a table file lie in the folder of a delta."""
    return f"{ROWS_FOLDER}/{name.removeprefix(f'{TABLES}/')}"


def _check_lists(file: Path, content: DeltaContent, manifest: Manifest) -> None:
    """BundleError where a delta does not say of every file of its bundle, and of no other, where it comes from."""
    if content.digest != manifest.digest:
        raise BundleError(f"{file} makes another bundle than the manifest beside it lists; {AGAIN}")
    listed = [*content.same, *content.whole, *content.rows]
    if sorted(listed) != sorted(manifest.files):
        odd = sorted({*listed} ^ {*manifest.files}) or listed
        raise BundleError(
            f"{file} and the manifest beside it do not name the same files, such as {shown(odd[0])}; {AGAIN}"
        )
    for name, rows in content.rows.items():
        for one in (name, rows.base):
            folder, _, table = one.rpartition("/")
            if folder != TABLES or not TABLE_FILE.fullmatch(table):
                raise BundleError(f"{file} has rows of {shown(one)}, which is no file of a table; {AGAIN}")

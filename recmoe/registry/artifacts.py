"""Artifacts: where the files of a version lie, and the proof that they are the ones that were registered."""

import hashlib
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import mlflow
import yaml
from filelock import FileLock
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from recmoe.errors import BundleError, RegistryError
from recmoe.export.contents import shown
from recmoe.export.delta import Delta, apply_delta
from recmoe.export.manifest import Manifest
from recmoe.registry.chain import called, chain_of, registered_digest
from recmoe.registry.transfer import Transfer
from recmoe.tracking.mlflow_store import ARTIFACTS, MlflowStore

LOADER_MODULE = "recmoe.registry.pyfunc"
"""By this name MLflow finds what loads a bundle."""

_DESCRIPTION = "MLmodel"
_MAX_DESCRIPTION_BYTES = 2**22
"""Of a thousand columns it has 100 kB; YAML is read at a few hundred kB a second."""


@dataclass(frozen=True)
class LocalBundle:
    """A bundle on this machine, and what it took to bring it here."""

    path: Path
    transfer: Transfer


class Artifacts:
    """Brings the bundle of a version onto this machine.

    Args:
        store: an MLflow that has answered.
        cache: where versions from a remote store are kept, and bundles that deltas make.
    """

    def __init__(self, store: MlflowStore, *, cache: Path) -> None:
        self._store, self._cache = store, cache
        self._num_bytes = 0
        """That came from artifact stores."""

    def bundle(self, version: ModelVersion) -> LocalBundle:
        """The bundle of a version, whose digest is the one that the registry has kept.

        A delta is applied to its base, which may be made of a delta itself; what the cache has is not fetched.

        Raises:
            RegistryError: recmoe has not registered the version, or another bundle lies in its place; or that holds
                for the base of a delta, or it is gone.
            BundleError: the bundle's manifest is damaged, or a delta is.
        """
        before = self._num_bytes
        chain = chain_of(self._store.client, version)
        path = self._made(chain) if len(chain) > 1 else self._whole(version)
        entries = Manifest.read(path).files.values()
        return LocalBundle(
            path,
            Transfer(
                num_bytes=self._num_bytes - before,
                whole_bytes=sum(entry.size for entry in entries),
                delta_of=called(chain[1]) if len(chain) > 1 else None,
            ),
        )

    def applied(self, delta: Delta, target: Path) -> Path:
        """The bundle that a delta makes, wherever it lies; nothing says that it is one of a registered version.

        Raises:
            RegistryError, BundleError: its base is not there, or another one; or a bundle or the delta is damaged.
        """
        name, number = delta.base.name, delta.base.version
        try:
            version = self._store.client.get_model_version(name, number)
        except MlflowException as error:
            raise RegistryError(
                f"{delta.path} is a delta of version {number} of model {name}, which {self._store.shown} does not "
                "have; set MLFLOW_TRACKING_URI to the registry that it comes from"
            ) from error
        apply_delta(delta, self.bundle(version).path, target)
        return target

    def _whole(self, version: ModelVersion) -> Path:
        """The bundle of a version that travels whole."""
        location = self._location(version)
        model = self._local(location) or _kept(self._place(version), partial(self._download, location))
        return _checked(version, bundle_folder(model))

    def _made(self, chain: Sequence[ModelVersion]) -> Path:
        """The bundle of a version that travels as a delta, the first of a chain."""
        places = [self._place(version, "-whole") for version in chain[:-1]]
        # The newest that has been made already, or the last, which travels whole.
        newest = next((number for number, place in enumerate(places) if place.exists()), len(places))
        if newest == 0:
            return _checked(chain[0], places[0])
        try:
            base = _checked(chain[newest], places[newest]) if newest < len(places) else self._whole(chain[-1])
        except (BundleError, RegistryError) as error:
            raise type(error)(f"{called(chain[0])} is made of {called(chain[newest])}: {error}") from error
        return _checked(chain[0], _kept(places[0], partial(self._build, chain[: newest + 1], base)))

    def _build(self, chain: Sequence[ModelVersion], base: Path, temporary: Path) -> Path:
        """Apply the deltas of a chain, the last first, to the bundle of its last version."""
        made = base
        for number in reversed(range(len(chain) - 1)):
            version, location = chain[number], self._location(chain[number])
            delta = self._delta(version, self._local(location) or self._download(location, temporary / str(number)))
            before, made = made, temporary / f"bundle-{number}"
            # A link to a file of an artifact store would change with it.
            apply_delta(delta, before, made, links=before.is_relative_to(self._cache))
            if before != base:
                shutil.rmtree(before)
        return made

    @staticmethod
    def _delta(version: ModelVersion, model: Path) -> Delta:
        """What a version holds that travels as a delta."""
        delta = Delta.read(bundle_folder(model))
        _check(version, delta.digest, delta.path)
        return delta

    def _place(self, version: ModelVersion, suffix: str = "") -> Path:
        """Where the cache has a version; another registry may have another model of this name and version."""
        key = hashlib.sha256(f"{self._store.shown} {self._location(version)}".encode()).hexdigest()[:12]
        return self._cache / str(version.name) / f"{version.version}-{key}{suffix}"

    def _download(self, location: str, folder: Path) -> Path:
        """The files of a version from a remote store."""
        folder.mkdir(exist_ok=True)
        downloaded = Path(
            mlflow.artifacts.download_artifacts(
                artifact_uri=location,
                dst_path=str(folder),
                tracking_uri=self._store.uri,
                registry_uri=self._store.uri,
            )
        )
        self._num_bytes += sum(file.lstat().st_size for file in downloaded.rglob("*") if not file.is_dir())
        return downloaded

    def _local(self, location: str) -> Path | None:
        """Where the files of a version lie, if that is this machine."""
        parts = urlsplit(location)
        return self._local_folder(Path(unquote(parts.path))) if parts.scheme in ("", "file") else None

    def _local_folder(self, written: Path) -> Path:
        """A folder of artifacts: where it was written, or beside the SQLite file, if that has moved with it."""
        database = self._store.database
        if written.exists() or database is None:
            return written
        # A model's own files lie in a folder of that name too.
        places = [place for place, part in enumerate(written.parts, start=1) if part == ARTIFACTS]
        moved = (database.parent.joinpath(ARTIFACTS, *written.parts[place:]) for place in places)
        return next((path for path in moved if (path / _DESCRIPTION).exists()), written)

    def _location(self, version: ModelVersion) -> str:
        """Where the files of a version are."""
        uri: str = self._store.client.get_model_version_download_uri(version.name, str(version.version))
        if uri.startswith("models:/"):
            model = self._store.client.get_logged_model(uri.removeprefix("models:/"))
            return str(model.artifact_location)
        return uri


def _checked(version: ModelVersion, folder: Path) -> Path:
    """The folder of a version's bundle, if that is what was registered."""
    _check(version, Manifest.read(folder).digest, folder)
    return folder


def _check(version: ModelVersion, found: str, folder: Path) -> None:
    registered = registered_digest(version)
    if found != registered:
        raise RegistryError(
            f"{called(version)} is not what was registered: the bundle in {folder} has the digest {found[:12]}, the "
            f"registry says {shown(registered[:12])}; do not use it, put the registered one back or register this one "
            "anew"
        )


def _kept(target: Path, make: Callable[[Path], Path]) -> Path:
    """A folder of the cache, made under a temporary name where it is not there yet: whole or not at all.

    One process makes it, others wait; what one has left that was killed is removed.

    Args:
        make: writes into a folder that it is given, and returns the one to keep, that or one inside.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        for left in target.parent.glob(f".{target.name}.*.part"):
            shutil.rmtree(left, ignore_errors=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            if not target.exists():
                temporary.mkdir()
                make(temporary).rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


def bundle_folder(model_folder: Path) -> Path:
    """Where an MLflow model of recmoe keeps its bundle: a folder inside its own, which no link leads out of.

    Raises:
        RegistryError: it is not of recmoe, or its description leads elsewhere.
    """
    path = model_folder / _DESCRIPTION
    try:
        if path.is_symlink():
            raise ValueError("it is a symbolic link")
        if (size := path.stat().st_size) > _MAX_DESCRIPTION_BYTES:
            raise ValueError(f"it has {size:,} bytes, {_MAX_DESCRIPTION_BYTES:,} are read")
        flavour = yaml.safe_load(path.read_bytes())["flavors"]["python_function"]
        loader, data = flavour["loader_module"], flavour["data"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError, yaml.YAMLError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RegistryError(
            f"{path} does not describe a model of recmoe: {type(error).__name__}: {reason}; register its bundle again"
        ) from error
    if loader != LOADER_MODULE:
        raise RegistryError(
            f"{path} describes a model that {_named(loader)} loads, not one of recmoe; name another version"
        )
    return _inside(model_folder, data, path)


def _inside(model_folder: Path, data: Any, named_by: Path) -> Path:
    """A folder of a model; RegistryError where the path leaves it."""
    folder = model_folder
    steps = PurePosixPath(data).parts if isinstance(data, str) else ("..",)
    for step in steps:
        folder = folder / step
        if step in ("/", "//", "..") or set(step) & {"\\", "\0"} or folder.is_symlink():
            raise RegistryError(
                f"{named_by} names {_named(data)} as its data, which leaves the folder of the model; register its "
                "bundle again"
            )
    return folder


def _named(value: Any) -> str:
    """A value of a description; a list is not written out, for in YAML a few lines make one that is endless."""
    return shown(str(value)) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"

"""Artifacts: where the files of a version lie, and the proof that they are the ones that were registered."""

import hashlib
import shutil
import uuid
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import mlflow
import yaml
from mlflow.entities.model_registry import ModelVersion

from recmoe.errors import RegistryError
from recmoe.export.contents import shown
from recmoe.export.manifest import Manifest
from recmoe.tracking.mlflow_store import ARTIFACTS, MlflowStore

LOADER_MODULE = "recmoe.registry.pyfunc"
"""By this name MLflow finds what loads a bundle."""
DIGEST = "recmoe.bundle_digest"
"""The tag of a version that keeps the digest of its bundle, as it was registered."""

_DESCRIPTION = "MLmodel"
_MAX_DESCRIPTION_BYTES = 2**22
"""Of a thousand columns it has 100 kB; YAML is read at a few hundred kB a second."""


class Artifacts:
    """Brings the bundle of a version onto this machine.

    Args:
        store: an MLflow that has answered.
    """

    def __init__(self, store: MlflowStore) -> None:
        self._store = store

    def bundle(self, version: ModelVersion, *, cache: Path) -> Path:
        """The folder of a version's bundle, whose digest is the one that the registry has kept.

        Args:
            cache: where versions from a remote store are kept.

        Raises:
            RegistryError: recmoe has not registered the version, or another bundle lies in its place.
            BundleError: the bundle's manifest is damaged.
        """
        named = f"version {version.version} of model {version.name}"
        registered = version.tags.get(DIGEST)
        if registered is None:
            raise RegistryError(
                f"{named} was not registered by recmoe: it has no tag {DIGEST}; name another version, or register its "
                "bundle with recmoe register"
            )
        folder = bundle_folder(self._fetch(version, cache))
        found = Manifest.read(folder).digest
        if found != registered:
            raise RegistryError(
                f"{named} is not what was registered: the bundle in {folder} has the digest {found[:12]}, the registry "
                f"says {shown(registered[:12])}; do not use it, put the registered one back or register this one anew"
            )
        return folder

    def _fetch(self, version: ModelVersion, cache: Path) -> Path:
        """The files of a version: where they lie, if that is this machine, else a copy in the cache."""
        location = self._location(version)
        parts = urlsplit(location)
        if parts.scheme in ("", "file"):
            return self._local_folder(Path(unquote(parts.path)))
        # Another registry may have another model of this name and version.
        place = hashlib.sha256(f"{self._store.shown} {location}".encode()).hexdigest()[:12]
        target = cache / str(version.name) / f"{version.version}-{place}"
        if not target.exists():
            temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
            temporary.mkdir(parents=True)
            try:
                downloaded = mlflow.artifacts.download_artifacts(
                    artifact_uri=location,
                    dst_path=str(temporary),
                    tracking_uri=self._store.uri,
                    registry_uri=self._store.uri,
                )
                Path(downloaded).rename(target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return target

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

"""A registry in a SQLite file, and one with versions that are deltas of each other."""

from collections.abc import Callable
from pathlib import Path

import pytest

from recmoe.registry.registry import Registry
from tests.large_shop import with_changed_rows


@pytest.fixture
def registry(mlflow_folder: Path) -> Registry:
    return Registry.connect(folder=mlflow_folder)


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory, large_bundle_path: Path) -> list[Path]:
    """Three bundles, each of which differs from the one before in one row of a hundred."""
    folder, paths = tmp_path_factory.mktemp("chain"), [large_bundle_path]
    for number in (2, 3):
        paths.append(with_changed_rows(paths[-1], folder / str(number), seed=number))
    return paths


@pytest.fixture
def deltas(registry: Registry, chain: list[Path]) -> Registry:
    """A registry with the three as versions 1, 2 and 3, of which 2 is a delta of 1, and 3 of 2."""
    registry.register(chain[0])
    registry.promote("shop", "1")
    registry.register(chain[1], base="champion")
    registry.register(chain[2], base="2")
    return registry


@pytest.fixture(scope="session")
def files() -> Callable[[Path], dict[str, bytes]]:
    """The files of a folder: ``files(folder)``."""

    def read(folder: Path) -> dict[str, bytes]:
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    return read


@pytest.fixture(scope="session")
def model_folder() -> Callable[[Registry, str], Path]:
    """Where the files of a version of the shop lie in the artifact store: ``model_folder(registry, version)``."""

    def find(registry: Registry, version: str) -> Path:
        return Path(str(registry._client.get_model_version("shop", version).source).removeprefix("file://"))

    return find

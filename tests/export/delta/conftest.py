"""A base, a bundle that differs from it in one row of a hundred, and the delta between them."""

import shutil
from pathlib import Path

import pytest

from recmoe.export.delta import Delta, DeltaBase, DeltaPlan
from recmoe.export.manifest import Manifest
from tests.large_shop import with_changed_rows


@pytest.fixture(scope="session")
def changed_path(tmp_path_factory: pytest.TempPathFactory, large_bundle_path: Path) -> Path:
    return with_changed_rows(large_bundle_path, tmp_path_factory.mktemp("changed") / "shop", seed=1)


@pytest.fixture(scope="session")
def delta(tmp_path_factory: pytest.TempPathFactory, large_bundle_path: Path, changed_path: Path) -> Delta:
    """That no test changes."""
    base = DeltaBase("shop", "1", Manifest.read(large_bundle_path).digest)
    return DeltaPlan.of(changed_path, large_bundle_path).write(tmp_path_factory.mktemp("deltas") / "delta", base)


@pytest.fixture
def copied_delta(delta: Delta, tmp_path: Path) -> Path:
    """One to break."""
    return Path(shutil.copytree(delta.path, tmp_path / "delta"))

"""A delta whose base is gone or another one, or that is damaged, is refused in words; nothing half made is left."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from recmoe.errors import BundleError, RegistryError
from recmoe.ranking.ranker import Ranker
from recmoe.registry import artifacts
from recmoe.registry.chain import DELTA_OF, MAX_DELTAS
from recmoe.registry.registry import Registry
from tests.large_shop import with_changed_rows

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

Files = Callable[[Path], dict[str, bytes]]
ModelFolder = Callable[[Registry, str], Path]


def test_mlflow_names_the_registry_that_does_not_know_the_base(
    model_folder: ModelFolder, deltas: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "runs" / "mlflow.db", tmp_path / "other")
    other = Registry.connect(folder=tmp_path / "other")
    other._client.delete_registered_model("shop")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", other.uri)

    with pytest.raises(
        RegistryError,
        match=r"is a delta of version 1 of model shop, which sqlite:.*other/mlflow\.db does not have; set MLFLOW_TRACK",
    ):
        mlflow.pyfunc.load_model(str(model_folder(deltas, "2")))


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("challenger", "has no model shop@challenger; promote one of its versions: 1"),
        ("7", "has no version 7 of model shop; there are 1"),
        ("models:/other/1", "has no version 1 of model other; its models: shop"),
        ("a/b", "models:/shop@a/b: expected models:/NAME@ALIAS"),
    ],
)
def test_base_that_is_not_there_is_refused(registry: Registry, chain: list[Path], base: str, message: str) -> None:
    registry.register(chain[0])

    assert not registry.has("shop", base)
    with pytest.raises(RegistryError, match=message):
        registry.register(chain[1], base=base)

    assert registry.has("shop", "1")
    assert registry.aliases("shop") == {}


def test_base_that_was_deleted_is_named_and_what_to_do(deltas: Registry, tmp_path: Path) -> None:
    deltas._client.delete_model_version("shop", "2")

    with pytest.raises(
        RegistryError,
        match=r"^version 3 of model shop is a delta of version 2 of model shop, which the registry does not have any "
        r"more; register its bundle again, whole: recmoe register BUNDLE --name shop$",
    ):
        deltas.resolve("models:/shop/3", cache=tmp_path)


def test_base_whose_files_are_gone_is_named(model_folder: ModelFolder, deltas: Registry, tmp_path: Path) -> None:
    shutil.rmtree(model_folder(deltas, "1"))

    with pytest.raises(RegistryError, match=r"^version 3 of model shop is made of version 1 of model shop: .*MLmodel"):
        deltas.resolve("models:/shop/3", cache=tmp_path)


def test_base_with_other_weights_is_refused(
    model_folder: ModelFolder, deltas: Registry, large_bundle_path: Path, tmp_path: Path
) -> None:
    base = model_folder(deltas, "1") / "data" / "bundle"
    shutil.rmtree(base)
    with_changed_rows(large_bundle_path, base, seed=9)

    with pytest.raises(
        RegistryError,
        match=r"^version 2 of model shop is made of version 1 of model shop: version 1 of model shop is not ",
    ):
        deltas.resolve("models:/shop/2", cache=tmp_path)


def test_base_in_the_cache_with_other_weights_is_refused(
    deltas: Registry, large_bundle_path: Path, tmp_path: Path
) -> None:
    second = deltas.resolve("models:/shop/2", cache=tmp_path).path
    shutil.rmtree(second)
    with_changed_rows(large_bundle_path, second, seed=9)

    with pytest.raises(
        RegistryError, match=r"^version 3 .* is made of version 2 .*: version 2 of model shop is not what"
    ):
        deltas.resolve("models:/shop/3", cache=tmp_path)
    with pytest.raises(RegistryError, match=r"^version 2 of model shop is not what was registered"):
        deltas.resolve("models:/shop/2", cache=tmp_path)


def test_delta_of_another_bundle_is_refused(model_folder: ModelFolder, deltas: Registry, tmp_path: Path) -> None:
    folder = model_folder(deltas, "2") / "data" / "delta"
    shutil.rmtree(folder)
    shutil.copytree(model_folder(deltas, "3") / "data" / "delta", folder)

    with pytest.raises(
        RegistryError, match=r"version 2 of model shop is not what was registered: the bundle in .*delta "
    ):
        deltas.resolve("models:/shop/2", cache=tmp_path)

    assert not [path for path in tmp_path.rglob("*") if path.is_dir() and path.name.startswith("2-")]


def test_versions_that_are_deltas_of_each_other_are_refused(deltas: Registry, tmp_path: Path) -> None:
    deltas._client.set_model_version_tag("shop", "2", DELTA_OF, "shop/3")

    with pytest.raises(
        RegistryError, match=f"is a delta of a delta, and so on, more than {MAX_DELTAS} times; register"
    ):
        deltas.resolve("models:/shop/3", cache=tmp_path)


def test_tag_that_names_no_version_is_refused(deltas: Registry, tmp_path: Path) -> None:
    deltas._client.set_model_version_tag("shop", "2", DELTA_OF, "../1/x")

    with pytest.raises(
        RegistryError, match=r"has the tag recmoe\.delta_of '\.\./1/x', expected NAME/VERSION; register"
    ):
        deltas.resolve("models:/shop/2", cache=tmp_path)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("the disk is away")])
def test_interrupted_application_leaves_nothing(
    files: Files,
    deltas: Registry,
    chain: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    apply = artifacts.apply_delta
    number = 0

    def interrupted(*arguments: object, **keywords: object) -> object:
        nonlocal number
        number += 1
        if number == 2:
            raise error
        return apply(*arguments, **keywords)

    monkeypatch.setattr(artifacts, "apply_delta", interrupted)
    with pytest.raises((KeyboardInterrupt, RegistryError)):
        deltas.resolve("models:/shop/3", cache=tmp_path)
    left = [path for path in (tmp_path / "shop").iterdir() if not path.name.endswith(".lock")]
    found = deltas.resolve("models:/shop/3", cache=tmp_path)

    assert left == []
    assert files(found.path) == files(chain[2])


def test_what_a_killed_process_left_is_removed(
    files: Files, deltas: Registry, chain: list[Path], tmp_path: Path
) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        # Dies inside of the second application, as it would by SIGKILL.
        apply = artifacts.apply_delta

        def die(*arguments: object, **keywords: object) -> None:
            apply(*arguments, **keywords)
            os.write(write, b"x")
            os._exit(9)

        artifacts.apply_delta = die
        try:
            deltas.resolve("models:/shop/2", cache=tmp_path)
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    left = [path for path in (tmp_path / "shop").iterdir() if path.is_dir()]
    found = deltas.resolve("models:/shop/2", cache=tmp_path)

    os.close(write)
    assert os.read(read, 1) == b"x"
    os.close(read)
    assert len(left) == 1
    assert files(found.path) == files(chain[1])
    assert [path for path in (tmp_path / "shop").iterdir() if path.is_dir()] == [found.path]


def test_damaged_delta_is_refused_and_nothing_is_kept(
    model_folder: ModelFolder, deltas: Registry, tmp_path: Path
) -> None:
    rows = sorted((model_folder(deltas, "2") / "data" / "delta" / "rows").iterdir())[0]
    content = bytearray(rows.read_bytes())
    content[-1] ^= 1
    rows.write_bytes(content)

    with pytest.raises(
        BundleError, match=rf"{rows.name} is damaged: its content has changed; register the bundle again"
    ):
        Ranker.load(deltas.resolve("models:/shop/3", cache=tmp_path).path)

    assert [path for path in (tmp_path / "shop").iterdir() if path.is_dir()] == []

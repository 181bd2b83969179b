"""What is loaded from a registry is what was registered; anything else ends in words."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from recmoe.errors import BundleError, RegistryError
from recmoe.registry.artifacts import bundle_folder
from recmoe.registry.registry import Registry
from recmoe.runs.source import bundle_path as path_of_source
from recmoe.runs.source import load_ranker
from recmoe.runs.warm_start import find_warm_start

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]


@pytest.fixture
def champion(registry: Registry, bundle_path: Path, tmp_path: Path) -> Path:
    """The folder of the bundle that models:/shop@champion names."""
    registry.register(bundle_path)
    registry.promote("shop", "1")
    return registry.resolve("models:/shop@champion", cache=tmp_path / "cache").path


@pytest.fixture
def other(make_bundle: Callable[..., Path], tmp_path: Path) -> Path:
    """A bundle that is whole, and another one."""
    return make_bundle(tmp_path / "other", report=None)


@pytest.mark.parametrize(
    "load",
    [
        lambda source, runs: load_ranker(source, runs=runs),
        lambda source, runs: path_of_source(source, runs=runs),
        lambda source, runs: find_warm_start(source, runs=runs),
    ],
    ids=["load_ranker", "bundle_path", "find_warm_start"],
)
@pytest.mark.parametrize("source", ["models:/shop@champion", "models:/shop/1"])
def test_exchanged_artifact_is_refused_however_it_is_asked_for(
    champion: Path, other: Path, mlflow_folder: Path, load: Callable[[str, Path], object], source: str
) -> None:
    load(source, mlflow_folder)
    shutil.rmtree(champion)
    shutil.copytree(other, champion)

    with pytest.raises(
        RegistryError,
        match=r"version 1 of model shop is not what was registered: the bundle in .* has the digest [0-9a-f]{12}, the "
        r"registry says '[0-9a-f]{12}'; do not use it, put the registered one back or register this one anew",
    ):
        load(source, mlflow_folder)


def test_changed_file_of_an_artifact_is_refused(champion: Path, mlflow_folder: Path) -> None:
    path = champion / "config.json"
    path.write_text(path.read_text().replace('"seed": 3', '"seed": 4'))

    with pytest.raises(BundleError, match=r"config\.json is damaged: its content has changed"):
        load_ranker("models:/shop/1", runs=mlflow_folder)


def test_version_that_recmoe_did_not_register_is_refused_before_it_is_fetched(
    registry: Registry, mlflow_folder: Path
) -> None:
    registry._client.create_registered_model("foreign")
    registry._client.create_model_version("foreign", source=f"file://{mlflow_folder}/nowhere")
    registry._client.set_registered_model_alias("foreign", "champion", "1")

    with pytest.raises(
        RegistryError,
        match=r"^version 1 of model foreign was not registered by recmoe: it has no tag recmoe\.bundle_digest; name "
        "another version, or register its bundle with recmoe register$",
    ):
        load_ranker("models:/foreign@champion", runs=mlflow_folder)


def test_artifact_that_is_gone_is_named(champion: Path, mlflow_folder: Path) -> None:
    shutil.rmtree(champion.parent)

    with pytest.raises((BundleError, RegistryError), match=r"no folder|does not describe a model of recmoe"):
        load_ranker("models:/shop/1", runs=mlflow_folder)


MODEL = "flavors:\n  python_function:\n    loader_module: recmoe.registry.pyfunc\n    data: {}\n"


def test_folder_of_a_bundle_is_found(tmp_path: Path) -> None:
    (tmp_path / "data" / "bundle").mkdir(parents=True)
    (tmp_path / "MLmodel").write_text(MODEL.format("data/bundle"))

    assert bundle_folder(tmp_path) == tmp_path / "data" / "bundle"


@pytest.mark.parametrize(
    "data",
    [
        "../elsewhere",
        "/etc",
        "//etc",
        "data/../../elsewhere",
        '"data\\\\bundle"',
        '"data\\0"',
        "3",
        "[a]",
        "link",
        "link/bundle",
    ],
)
def test_data_that_leaves_the_model_is_refused(tmp_path: Path, data: str) -> None:
    model = tmp_path / "model"
    (model / "data").mkdir(parents=True)
    (tmp_path / "elsewhere" / "bundle").mkdir(parents=True)
    (model / "link").symlink_to(tmp_path / "elsewhere")
    (model / "MLmodel").write_text(MODEL.format(data))

    with pytest.raises(RegistryError, match=r"MLmodel names .* as its data, which leaves the folder of the model"):
        bundle_folder(model)


LISTS = "\n".join(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 12))
"""Eleven lines that are a list of 9^11 elements, if one writes it out."""


@pytest.mark.parametrize("place", ["loader_module: *a11, data: b", "loader_module: recmoe.registry.pyfunc, data: *a11"])
def test_description_that_is_endless_once_written_out_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "MLmodel").write_text(f"a0: &a0 x\n{LISTS}\nflavors:\n  python_function: {{{place}}}\n")

    with pytest.raises(RegistryError, match=r"describes a model that a list loads|names a list as its data"):
        bundle_folder(tmp_path)


def test_description_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_bytes(b"#" * (2**22 + 1))

    with pytest.raises(RegistryError, match=r"ValueError: it has 4,194,305 bytes, 4,194,304 are read; register its"):
        bundle_folder(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "flavors: {}",
        "flavors: {python_function: 3}",
        "flavors: {python_function: {loader_module: recmoe.registry.pyfunc}}",
        "{" * 10_000,
        "[" * 10_000 + "]" * 10_000,
        "!!python/object/apply:os.mkdir [mark]",
        "\x00",
    ],
)
def test_description_that_is_none_of_recmoe_is_refused(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "MLmodel").write_text(text)

    with pytest.raises(RegistryError, match=r"MLmodel does not describe a model of recmoe: .*; register its bundle"):
        bundle_folder(tmp_path)

    assert os.listdir(tmp_path) == ["MLmodel"]


def test_description_that_is_missing_or_a_link_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="MLmodel does not describe a model of recmoe: FileNotFoundError"):
        bundle_folder(tmp_path)
    (tmp_path / "real").write_text(MODEL.format("data"))
    (tmp_path / "MLmodel").symlink_to(tmp_path / "real")
    with pytest.raises(RegistryError, match="does not describe a model of recmoe: ValueError: it is a symbolic link"):
        bundle_folder(tmp_path)


def test_model_of_another_flavour_is_refused(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(MODEL.format("data").replace("recmoe.registry.pyfunc", "mlflow.sklearn"))

    with pytest.raises(RegistryError, match=r"describes a model that 'mlflow\.sklearn' loads, not one of recmoe"):
        bundle_folder(tmp_path)

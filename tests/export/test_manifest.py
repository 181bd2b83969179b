"""A manifest tells damaged and strange bundles apart."""

import json
from pathlib import Path

import pytest

from recmoe.errors import BundleError
from recmoe.export.contents import REQUIRED
from recmoe.export.manifest import FileEntry, Manifest, digest_of, list_files, sha256_of

TABLE = f"tables/{'a' * 64}.safetensors"
NAMES = sorted([*REQUIRED, "encoder/encoder.json", TABLE])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"abc")
    files = list_files(tmp_path)
    Manifest("shop", "2026-01-01T00:00:00+00:00", "0", "f", ("ctr",), digest_of(files), files).write(tmp_path)
    return tmp_path


def test_manifest_reads_back_and_its_files_pass(folder: Path) -> None:
    manifest = Manifest.read(folder)

    manifest.verify(folder)

    assert manifest.name == "shop"
    assert manifest.tasks == ("ctr",)
    assert list(manifest.files) == NAMES
    assert manifest.files["config.json"] == FileEntry(3, sha256_of(folder / "config.json"))


def test_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is no bundle: it has no manifest\.json; give the folder that export wrote"):
        Manifest.read(tmp_path)


def test_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"there is no folder .*nowhere; name a run, a bundle or models:/NAME@ALIAS"):
        Manifest.read(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["{", "[]", "{}", "3"])
def test_manifest_that_cannot_be_read_is_damaged(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)

    with pytest.raises(BundleError, match=r"manifest\.json is damaged: it cannot be read"):
        Manifest.read(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 1}, r"is of format recmoe-bundle version 1, this recmoe reads recmoe-bundle version 2"),
        ({"format": "other"}, r"is of format other version 2"),
        ({"extra": 1}, r"is damaged: .*extra"),
        ({"files": {"a": {"size": 1}}}, "is damaged: .*sha256"),
        ({"tasks": 3}, "is damaged"),
        ({"digest": "0"}, "its digest does not fit its files"),
    ],
)
def test_manifest_that_does_not_fit_is_refused(folder: Path, changes: dict[str, object], message: str) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    with pytest.raises(BundleError, match=message):
        Manifest.read(folder)


def test_missing_file_is_named(folder: Path) -> None:
    (folder / "config.json").unlink()

    with pytest.raises(BundleError, match=r"config\.json is missing; copy or export the bundle again"):
        Manifest.read(folder).verify(folder)


def test_cut_file_is_named_with_its_size(folder: Path) -> None:
    (folder / TABLE).write_bytes(b"a")

    with pytest.raises(BundleError, match=r"a{64}\.safetensors is damaged: 1 bytes, 3 were written"):
        Manifest.read(folder).verify(folder)


def test_changed_file_is_named(folder: Path) -> None:
    (folder / TABLE).write_bytes(b"abd")

    with pytest.raises(BundleError, match=r"a{64}\.safetensors is damaged: its content has changed"):
        Manifest.read(folder).verify(folder)

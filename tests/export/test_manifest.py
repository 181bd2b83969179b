"""A manifest tells damaged and strange bundles apart."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from recmoe.errors import BundleError
from recmoe.export.contents import REQUIRED
from recmoe.export.manifest import FileEntry, Manifest, digest_of, list_files, sha256_of

TABLE = f"tables/{hashlib.sha256(b'abc').hexdigest()}.safetensors"
NAMES = sorted([*REQUIRED, "encoder/encoder.json", TABLE])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"abc")
    files = list_files(tmp_path)
    Manifest("shop", "2026-01-01T00:00:00+00:00", "0", "f", ("ctr",), digest_of(files), files).write(tmp_path)
    return tmp_path


def write_again(folder: Path, changes: dict[str, object]) -> None:
    """Change a manifest on purpose: without the hash of itself, as earlier versions wrote it."""
    path = folder / "manifest.json"
    document = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in document.items() if key != "sha256"}))


def test_manifest_of_an_earlier_version_has_no_hash_of_itself(folder: Path) -> None:
    write_again(folder, {})

    Manifest.read(folder).verify(folder)


def test_changed_name_is_found(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"shop"', '"shot"'))

    with pytest.raises(BundleError, match=r"manifest\.json is damaged: its content has changed; copy or export"):
        Manifest.read(folder)


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


@pytest.mark.parametrize("text", ["{", "[]", "{}", "3", "null", '"text"', "[" * 100_000, '{"a":' * 100_000])
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
        ({"tasks": 3}, "is damaged: tasks: "),
        ({"name": 3}, "is damaged: name: .*string"),
        ({"packages": []}, "is damaged: packages: "),
        ({"files": ["config.json"]}, "is damaged: files: "),
        ({"files": {"a": {"size": -1, "sha256": "0" * 64}}}, r"is damaged: files\.a\.size: "),
        ({"files": {"a": {"size": 1, "sha256": 7}}}, r"is damaged: files\.a\.sha256: "),
        ({"files": {"a": {"size": 1, "sha256": "0" * 63}}}, r"is damaged: files\.a\.sha256: "),
        ({"digest": "0"}, "its digest does not fit its files"),
    ],
)
def test_manifest_that_does_not_fit_is_refused(folder: Path, changes: dict[str, object], message: str) -> None:
    write_again(folder, changes)

    with pytest.raises(BundleError, match=message):
        Manifest.read(folder)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("../secret", "it leaves the folder"),
        ("/etc/passwd", "it leaves the folder"),
        ("tables/../../secret", "it leaves the folder"),
        ("tables\\a.safetensors", "such a path is no name of a file in a bundle"),
        ("config.json\0", "such a path is no name of a file in a bundle"),
        ("model.pkl", "loading it runs no code"),
        ("encoder/__init__.py", "loading it runs no code"),
        ("weights.pt", "loading it runs no code"),
        ("tables/fast.so", "loading it runs no code"),
        ("tables/" + "a" * 63 + ".safetensors", "a bundle has no such file"),
        ("encoder/vocabulary_0.arrow/x", "a bundle has no such file"),
        ("./config.json", "a bundle has no such file"),
        ("manifest.json", "a bundle has no such file"),
        ("", "a bundle has no such file"),
        ("x" * 10_000, "a bundle has no such file"),
    ],
)
def test_listed_file_that_no_bundle_has_is_refused_before_it_is_looked_for(folder: Path, name: str, fault: str) -> None:
    files = json.loads((folder / "manifest.json").read_text())["files"]
    write_again(folder, {"files": {**files, name: {"size": 1, "sha256": "0" * 64}}})

    with pytest.raises(BundleError, match=r"manifest\.json lists '.{0,140}: .*do not load it") as caught:
        Manifest.read(folder)

    assert fault in str(caught.value)
    assert len(str(caught.value)) < 600


def test_table_that_is_not_what_its_name_says_is_refused(folder: Path) -> None:
    (folder / TABLE).write_bytes(b"abd")
    files = json.loads((folder / "manifest.json").read_text())["files"]
    write_again(folder, {"files": {**files, TABLE: {"size": 3, "sha256": sha256_of(folder / TABLE)}}})

    with pytest.raises(BundleError, match=r"lists tables/.*, whose content is not what its name says; copy or export"):
        Manifest.read(folder)


@pytest.mark.parametrize("name", ["notes.txt", "tables/model.pkl", "encoder/vocabulary_7.arrow"])
def test_file_that_is_not_listed_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("")

    with pytest.raises(BundleError, match=rf"{name} is not listed in manifest\.json; remove it, or copy or export"):
        Manifest.read(folder).verify(folder)


@pytest.mark.parametrize("name", ["__pycache__", "tables/more", "encoder/tables"])
def test_folder_that_no_bundle_has_is_refused(folder: Path, name: str) -> None:
    (folder / name).mkdir()

    with pytest.raises(BundleError, match=rf"{name} is a folder that no bundle has; a bundle holds files alone"):
        Manifest.read(folder).verify(folder)


@pytest.mark.parametrize("name", ["manifest.json", "config.json", "encoder/encoder.json", "encoder", "tables"])
def test_symbolic_link_is_refused_although_it_leads_to_the_same(folder: Path, tmp_path: Path, name: str) -> None:
    elsewhere = (folder / name).rename(tmp_path.parent / f"{tmp_path.name}-elsewhere")
    (folder / name).symlink_to(elsewhere)

    with pytest.raises(BundleError, match=rf"{name} is a symbolic link; a bundle holds files alone"):
        Manifest.read(folder).verify(folder)


def test_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")

    with pytest.raises(BundleError, match=r"config\.json is no file; a bundle holds files alone"):
        Manifest.read(folder).verify(folder)


def test_missing_file_is_named(folder: Path) -> None:
    (folder / "config.json").unlink()

    with pytest.raises(BundleError, match=r"config\.json is missing; copy or export the bundle again"):
        Manifest.read(folder).verify(folder)


def test_cut_file_is_named_with_its_size(folder: Path) -> None:
    (folder / TABLE).write_bytes(b"a")

    with pytest.raises(BundleError, match=r"[0-9a-f]{64}\.safetensors is damaged: 1 bytes, 3 were written"):
        Manifest.read(folder).verify(folder)


def test_changed_file_is_named(folder: Path) -> None:
    (folder / TABLE).write_bytes(b"abd")

    with pytest.raises(BundleError, match=r"[0-9a-f]{64}\.safetensors is damaged: its content has changed"):
        Manifest.read(folder).verify(folder)

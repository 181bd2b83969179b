"""Committing, verifying and keeping checkpoint folders."""

import json
import logging
from pathlib import Path

import pytest

from recmoe.errors import CheckpointError
from recmoe.training import checkpoint_folder
from recmoe.training.checkpoint_folder import (
    commit,
    committed,
    file_names,
    fingerprint_files,
    newest_good,
    prepare,
    prune,
    read_manifest,
    step_folder,
    step_of,
    verify,
)


def write(root: Path, step: int, *, is_best: bool = False, text: str = "weights") -> Path:
    """Commit a checkpoint of one small file."""
    folder = step_folder(root, step)
    part = prepare(folder)
    (part / "tensors").mkdir()
    (part / "tensors" / "a").write_text(text)
    commit(part, folder, files=fingerprint_files(part, file_names(part)), about={"is_best": is_best})
    return folder


def test_a_committed_folder_verifies(tmp_path: Path) -> None:
    folder = write(tmp_path, 1000, is_best=True)

    assert folder.name == "step-00001000"
    assert step_of(folder) == 1000
    assert verify(folder)["about"] == {"is_best": True}


def test_nothing_is_seen_before_the_commit(tmp_path: Path) -> None:
    write(tmp_path, 1)
    part = prepare(step_folder(tmp_path, 2))
    (part / "a").write_text("half")

    assert newest_good(tmp_path) == step_folder(tmp_path, 1)


def test_what_a_killed_save_left_is_removed_by_the_next(tmp_path: Path) -> None:
    left = prepare(step_folder(tmp_path, 2))

    write(tmp_path, 3)

    assert not left.exists()


def test_a_step_saved_again_replaces_the_old(tmp_path: Path) -> None:
    write(tmp_path, 1, text="old")

    folder = write(tmp_path, 1, text="new")

    assert (folder / "tensors" / "a").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    verify(folder)


def test_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*step-00000007"):
        read_manifest(step_folder(tmp_path, 7))


def test_uncommitted_checkpoint_is_refused(tmp_path: Path) -> None:
    step_folder(tmp_path, 7).mkdir()

    with pytest.raises(CheckpointError, match=r"step-00000007 was never committed \(no manifest.json\)"):
        read_manifest(step_folder(tmp_path, 7))


@pytest.mark.parametrize(
    ("text", "found"), [("{", "Expecting property name"), ("[]", "cannot be interpreted"), ("{}", "sha256")]
)
def test_broken_manifest_is_refused(tmp_path: Path, text: str, found: str) -> None:
    folder = write(tmp_path, 1)
    (folder / "manifest.json").write_text(text)

    with pytest.raises(CheckpointError, match=f"manifest.json is damaged.*{found}"):
        read_manifest(folder)


def test_changed_manifest_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace("false", "true"))

    with pytest.raises(CheckpointError, match=r"manifest.json is damaged: its hash differs"):
        read_manifest(folder)


def test_manifest_of_another_format_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    body = json.loads((folder / "manifest.json").read_text())
    del body["sha256"]
    body["format"] = 1
    digest = checkpoint_folder._digest(body)
    (folder / "manifest.json").write_text(json.dumps({**body, "sha256": digest}))

    with pytest.raises(
        CheckpointError, match="step-00000001 has format 1, this version reads 3; end the run with the version"
    ):
        read_manifest(folder)


def test_missing_file_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    (folder / "tensors" / "a").unlink()

    with pytest.raises(CheckpointError, match="tensors/a is missing"):
        verify(folder)


def test_cut_file_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    (folder / "tensors" / "a").write_text("weigh")

    with pytest.raises(CheckpointError, match="tensors/a is damaged: 5 bytes instead of 7"):
        verify(folder)


def test_flipped_bit_is_found(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    (folder / "tensors" / "a").write_text("weighty")

    with pytest.raises(CheckpointError, match="tensors/a is damaged: its hash differs"):
        verify(folder)


def test_newest_good_skips_damaged_ones_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = write(tmp_path, 9)
    damaged = write(tmp_path, 10)
    (damaged / "tensors" / "a").write_text("x")

    with caplog.at_level(logging.WARNING):
        found = newest_good(tmp_path)

    assert found == good
    assert "skipped" in caplog.text
    assert "step-00000010/tensors/a is damaged" in caplog.text


def test_no_checkpoints_is_none(tmp_path: Path) -> None:
    (tmp_path / "step-notes").mkdir()

    assert newest_good(tmp_path) is None
    assert newest_good(tmp_path / "nowhere") is None


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5):
        write(tmp_path, step, is_best=step in (1, 2))

    prune(tmp_path, step=5, keep=2)

    assert [step_of(folder) for folder in committed(tmp_path)] == [5, 4, 2]
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_damaged_later_steps_do_not_push_out_good_ones(tmp_path: Path) -> None:
    damaged = write(tmp_path, 100, is_best=True)
    (damaged / "manifest.json").write_text("{")
    for step in (50, 60):
        write(tmp_path, step)

    prune(tmp_path, step=60, keep=1)

    assert [step_of(folder) for folder in committed(tmp_path)] == [100, 60]

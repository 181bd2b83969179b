"""A delta is small, makes the very bundle that it was made of, and says what it does not fit."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from recmoe.errors import BundleError
from recmoe.export.bundle import ModelBundle
from recmoe.export.delta import DELTA, Delta, DeltaBase, DeltaPlan, apply_delta, copied
from recmoe.export.delta.document import hash_of
from recmoe.export.manifest import Manifest
from recmoe.ranking.ranker import Ranker
from tests.large_shop import large_bundle, with_changed_rows, with_new_rows


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def size(folder: Path) -> int:
    return sum(len(content) for content in files(folder).values())


def test_delta_of_one_row_in_a_hundred_has_a_twentieth_of_the_bytes_at_most(delta: Delta, changed_path: Path) -> None:
    assert size(delta.path) == delta.num_bytes
    assert delta.num_bytes <= 0.05 * size(changed_path)
    assert len(delta.content.rows) == 2
    assert "config.json" in delta.content.same
    assert {"replay_scores.parquet", "tables.json"} <= {*delta.content.whole}


@pytest.mark.parametrize("links", [True, False])
def test_applied_delta_is_the_bundle_byte_by_byte(
    delta: Delta, large_bundle_path: Path, changed_path: Path, shop_log: pa.Table, tmp_path: Path, links: bool
) -> None:
    apply_delta(delta, large_bundle_path, tmp_path / "made", links=links)

    assert files(tmp_path / "made") == files(changed_path)
    assert (tmp_path / "made" / "config.json").samefile(large_bundle_path / "config.json") == links
    made, changed = Ranker.load(tmp_path / "made"), Ranker.load(changed_path)
    assert (made.score(shop_log) == changed.score(shop_log)).all()
    assert (made.score(shop_log) != Ranker.load(large_bundle_path).score(shop_log)).any()


def test_delta_applies_where_files_cannot_be_linked_or_copied_by_the_kernel(
    delta: Delta, large_bundle_path: Path, changed_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EXDEV, "another device")

    monkeypatch.setattr(os, "link", fail)
    monkeypatch.setattr(os, "copy_file_range", fail)
    apply_delta(delta, large_bundle_path, tmp_path / "made", links=True)

    assert files(tmp_path / "made") == files(changed_path)


@pytest.mark.parametrize("copy", [copied.copy_file, copied.link_or_copy])
def test_other_failures_of_a_copy_are_raised(
    copy: Callable[[Path, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "link", fail)
    monkeypatch.setattr(os, "copy_file_range", fail)
    (tmp_path / "file").write_text("x")

    with pytest.raises(OSError, match="no space left"):
        copy(tmp_path / "file", tmp_path / "other")


def test_table_that_grew_travels_whole_and_the_delta_applies(
    large_bundle_path: Path, shop_config: dict[str, object], shop_log: pa.Table, tmp_path: Path
) -> None:
    grown = large_bundle(tmp_path / "grown", shop_config, shop_log, num_buckets=60_100)
    base = DeltaBase("shop", "1", Manifest.read(large_bundle_path).digest)

    delta = DeltaPlan.of(grown, large_bundle_path).write(tmp_path / "delta", base)
    apply_delta(delta, large_bundle_path, tmp_path / "made")

    assert any(name.startswith("tables/") for name in delta.content.whole)
    assert files(tmp_path / "made") == files(grown)


def test_plan_knows_how_much_travels(large_bundle_path: Path, changed_path: Path, delta: Delta, tmp_path: Path) -> None:
    plan = DeltaPlan.of(changed_path, large_bundle_path)
    itself = DeltaPlan.of(changed_path, changed_path)
    other = DeltaPlan.of(with_new_rows(large_bundle_path, tmp_path / "other"), large_bundle_path)

    assert delta.num_bytes - 20_000 < plan.num_bytes < delta.num_bytes
    assert itself.num_bytes == 0
    assert other.rows == {}
    assert other.num_bytes > 0.9 * other.whole_bytes


def test_plan_refuses_a_base_whose_table_has_changed(
    large_bundle_path: Path, changed_path: Path, delta: Delta, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(large_bundle_path, tmp_path / "base"))
    table = next(iter(delta.content.rows.values())).base
    content = bytearray((base / table).read_bytes())
    content[-1] ^= 1
    (base / table).write_bytes(content)

    with pytest.raises(BundleError, match=f"{table} is damaged: its content has changed; copy or export it again"):
        DeltaPlan.of(changed_path, base)


def test_delta_that_cannot_be_written_says_so(
    large_bundle_path: Path, changed_path: Path, delta: Delta, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(BundleError, match="could not be written: Not a directory; free some space, or set TMPDIR"):
        DeltaPlan.of(changed_path, large_bundle_path).write(tmp_path / "file" / "delta", delta.base)


def test_other_base_is_refused(delta: Delta, changed_path: Path, tmp_path: Path) -> None:
    with pytest.raises(
        BundleError, match=r"builds on the bundle [0-9a-f]{12} of shop version 1, .*shop is [0-9a-f]{12}; register the"
    ):
        apply_delta(delta, changed_path, tmp_path / "made")

    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("what", ["same", "rows"])
@pytest.mark.parametrize("is_cut", [True, False])
def test_damaged_file_of_the_base_is_named(
    delta: Delta, large_bundle_path: Path, tmp_path: Path, what: str, is_cut: bool
) -> None:
    base = Path(shutil.copytree(large_bundle_path, tmp_path / "base"))
    name = "dense.safetensors" if what == "same" else next(iter(delta.content.rows.values())).base
    content = bytearray((base / name).read_bytes())
    content[-1] ^= 1
    (base / name).write_bytes(content[:-1] if is_cut else content)

    with pytest.raises(BundleError, match=rf"{name} is damaged: .*; copy or export the bundle again"):
        apply_delta(delta, base, tmp_path / "made")


def test_full_disk_or_taken_place_is_said(delta: Delta, large_bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()

    with pytest.raises(
        BundleError, match=r"could not be applied to .*: File exists; nothing was left: free some space"
    ):
        apply_delta(delta, large_bundle_path, tmp_path / "made")


def test_delta_of_a_delta_makes_the_third_bundle(delta: Delta, changed_path: Path, tmp_path: Path) -> None:
    third = with_changed_rows(changed_path, tmp_path / "third", seed=2)
    base = DeltaBase("shop", "2", delta.digest)

    second = DeltaPlan.of(third, changed_path).write(tmp_path / "delta", base)
    apply_delta(second, changed_path, tmp_path / "made")

    assert files(tmp_path / "made") == files(third)


def test_folder_that_is_no_delta_is_refused(large_bundle_path: Path) -> None:
    with pytest.raises(BundleError, match=r"shop is no delta: it has no file delta\.json; register the bundle again"):
        Delta.read(large_bundle_path)


def test_delta_is_no_bundle(delta: Delta) -> None:
    with pytest.raises(BundleError, match=r"is no bundle: it has no manifest\.json"):
        ModelBundle.load(delta.path)


def rewrite(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Change delta.json and make its hash anew."""
    document = json.loads((folder / DELTA).read_text())
    document.pop("sha256")
    change(document)
    (folder / DELTA).write_text(json.dumps({**document, "sha256": hash_of(document)}))


TABLE = f"tables/{'0' * 64}.safetensors"


def first_rows(document: dict[str, object]) -> dict[str, object]:
    return next(iter(document["rows"].values()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda found: found.update(format="zip"),
            r"of format 'zip' version '1', this recmoe reads recmoe-delta version 1",
        ),
        (
            lambda found: found.update(format_version=2),
            "version '2', this recmoe reads .*; register the bundle again with",
        ),
        (lambda found: found.update(more=1), "is damaged: more: Unexpected keyword"),
        (lambda found: found["base"].update(version="../1"), r"base\.version: String should match pattern"),
        (lambda found: found["base"].update(digest="0"), r"base\.digest: String should match pattern"),
        (lambda found: found.update(digest="0" * 64), "makes another bundle than the manifest beside it lists"),
        (lambda found: found["same"].pop(), "do not name the same files, such as '"),
        (lambda found: found["same"].append("../../etc/passwd"), r"same files, such as '\.\./\.\./etc/passwd'"),
        (lambda found: found["same"].append("/etc/passwd"), "same files, such as '/etc/passwd'"),
        (lambda found: found["same"].append("config.json"), "do not name the same files, such as '"),
        (lambda found: first_rows(found).update(base="../x"), r"has rows of '\.\./x', which is no file of a table"),
        (
            lambda found: first_rows(found).update(base="config.json"),
            "rows of 'config.json', which is no file of a table",
        ),
        (
            lambda found: (
                found["same"].remove("config.json"),
                found["rows"].update({"config.json": first_rows(found)}),
            ),
            "has rows of 'config.json', which is no file of a table",
        ),
        (lambda found: first_rows(found).update(base=TABLE), f"changes rows of {TABLE}, of which .* has none so large"),
        (
            lambda found: (found["whole"].remove("tables.json"), found["same"].append("tables.json")),
            r"tables\.json is not listed in delta\.json; remove it, or register the bundle again",
        ),
        (lambda found: found["whole"].append(found["same"].pop()), "is missing; register the bundle again"),
    ],
)
def test_list_of_files_that_is_not_so_is_refused(
    copied_delta: Path, large_bundle_path: Path, tmp_path: Path, change: Callable[..., object], message: str
) -> None:
    rewrite(copied_delta, change)

    with pytest.raises(BundleError, match=message):
        apply_delta(Delta.read(copied_delta), large_bundle_path, tmp_path / "made")


def test_file_that_the_base_has_otherwise_is_refused(
    copied_delta: Path, large_bundle_path: Path, tmp_path: Path
) -> None:
    rewrite(copied_delta, lambda found: (found["whole"].remove("tables.json"), found["same"].append("tables.json")))
    (copied_delta / "bundle" / "tables.json").unlink()

    with pytest.raises(BundleError, match=r"takes tables\.json from .*, which has another one; register the"):
        apply_delta(Delta.read(copied_delta), large_bundle_path, tmp_path / "made")


def test_rows_with_other_values_are_refused_even_if_their_hash_fits(
    copied_delta: Path, large_bundle_path: Path, tmp_path: Path
) -> None:
    rows = sorted((copied_delta / "rows").iterdir())[0]
    content = bytearray(rows.read_bytes())
    content[-1] ^= 1
    rows.write_bytes(content)
    name = f"tables/{rows.name}"
    rewrite(copied_delta, lambda found: found["rows"][name].update(sha256=hashlib.sha256(content).hexdigest()))

    with pytest.raises(
        BundleError,
        match=rf"delta does not make of .*shop the bundle that it says: {name} is damaged: its content has changed; r",
    ):
        apply_delta(Delta.read(copied_delta), large_bundle_path, tmp_path / "made")

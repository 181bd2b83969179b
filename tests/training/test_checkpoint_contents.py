"""What is in checkpoints, and copies of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from recmoe.errors import CheckpointError
from recmoe.training.checkpoint_contents import compare, find_checkpoint, list_checkpoints, read_contents, root_of
from recmoe.training.checkpoint_copies import reshard, unshard
from recmoe.training.checkpoint_folder import prepare, step_folder, verify

MakeRun = Callable[..., Any]


@pytest.fixture
def run(make_run: MakeRun, tmp_path: Path) -> Any:
    """Two checkpoints, of steps 1 and 2, in ``run/checkpoints``; the first validated best."""
    run = make_run(tmp_path / "run" / "checkpoints", table="user/id")
    run.train(0)
    run.store.save(1, {"step": 1}, is_best=True)
    run.train(1)
    run.store.save(2, {"step": 2})
    return run


@pytest.fixture
def root(run: Any, tmp_path: Path) -> Path:
    del run
    return tmp_path / "run" / "checkpoints"


def test_checkpoints_are_listed_with_what_was_never_committed(root: Path) -> None:
    prepare(step_folder(root, 3))

    rows = list_checkpoints(root.parent)

    assert [(row.step, row.world_size, row.is_best, row.status.partition(":")[0]) for row in rows] == [
        (2, 1, False, "ok"),
        (1, 1, True, "ok"),
        (3, None, False, "never committed"),
    ]
    # A table with one float of optimizer state per row; most of the rest are the states of random generators.
    assert 1000 * 5 * 4 < rows[0].num_bytes < 1000 * 5 * 4 + 40_000


def test_a_flipped_bit_is_seen_where_hashes_are_compared(root: Path) -> None:
    path = step_folder(root, 2) / "tensors" / "0-0.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    sizes = list_checkpoints(root)
    hashes = list_checkpoints(root, is_thorough=True)

    assert [row.status for row in sizes] == ["ok", "ok"]
    assert "0-0.safetensors is damaged: its hash differs" in hashes[0].status
    assert find_checkpoint(root) == step_folder(root, 1)


def test_a_checkpoint_without_manifest_is_listed_as_such(root: Path) -> None:
    (step_folder(root, 2) / "manifest.json").unlink()

    assert "was never committed" in list_checkpoints(root)[0].status


def test_a_folder_without_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoints; give the folder of a run"):
        root_of(tmp_path)


def test_a_run_without_a_good_checkpoint_is_refused(root: Path) -> None:
    for step in (1, 2):
        (step_folder(root, step) / "manifest.json").write_text("{")

    with pytest.raises(CheckpointError, match="holds no checkpoint that is committed and undamaged"):
        find_checkpoint(root)


def test_tensors_are_summed_up(run: Any, root: Path) -> None:
    run.model.tower.bias.data.fill_(float("nan"))
    weight = run.weights()["user/id"]
    run.store.save(3, {"step": 3})

    contents = read_contents(find_checkpoint(root))

    found = {tensor.name: tensor for tensor in contents.tensors}
    table, bias = found["tables/user/id"], found["dense/tower.bias"]
    assert (contents.state, contents.about["world_size"]) == ({"step": 3}, 1)
    assert (table.shape, table.dtype, table.num_bytes, table.num_parts) == ((1000, 4), "float32", 16_000, 1)
    assert table.norm == pytest.approx(float(weight.double().norm()))
    assert table.mean == pytest.approx(float(weight.double().mean()))
    assert table.abs_max == float(weight.abs().max())
    assert (bias.num_not_finite, bias.norm, bias.mean) == (1, 0.0, 0.0)
    assert {name for name in found if name.startswith("table_optimizer/")} == {"table_optimizer/user/id/sum"}


def test_a_checkpoint_equals_itself(root: Path) -> None:
    num_equal, differences = compare(step_folder(root, 1), step_folder(root, 1))

    # The table, its optimizer's sums, two dense parameters, and three slots for each of them.
    assert (num_equal, differences) == (10, [])


def test_a_step_changes_the_rows_that_it_touched(run: Any, root: Path, make_run: MakeRun) -> None:
    before = make_run(root, table="user/id")
    before.store.load(1)
    gap = (run.weights()["user/id"] - before.weights()["user/id"]).abs()

    _, differences = compare(step_folder(root, 1), step_folder(root, 2))

    found = {difference.name: difference for difference in differences}
    assert found["tables/user/id"].max_abs == float(gap.max())
    assert found["tables/user/id"].changed_rows == gap.any(dim=1).sum() / 1000
    assert found["dense_optimizer/tower.bias/step"].max_abs == 1.0


def test_other_tensors_are_named(root: Path, make_run: MakeRun, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", table="item")
    other.model.tower = torch.nn.Linear(4, 2)
    other.store.save(1, {})

    num_equal, differences = compare(step_folder(root, 1), step_folder(tmp_path / "other", 1))

    kinds = {difference.name: difference.kind for difference in differences}
    assert num_equal == 0
    assert kinds["tables/item"] == "only in the second"
    assert kinds["tables/user/id"] == "only in the first"
    assert kinds["dense/tower.bias"] == "shape"


@pytest.mark.parametrize(("max_file_bytes", "files"), [(1 << 20, 1), (3000, 6)])
def test_unsharded_tables_are_those_of_the_model(
    max_file_bytes: int, files: int, run: Any, root: Path, tmp_path: Path
) -> None:
    index = unshard(step_folder(root, 2), tmp_path / "out", max_file_bytes=max_file_bytes)

    table = index["tables"]["user/id"]
    pieces = [load_file(tmp_path / "out" / file)["weight"] for file in table["files"]]
    dense = load_file(tmp_path / "out" / "dense.safetensors")
    assert len(pieces) == files
    assert table["files"][0].startswith("tables/user%2Fid")
    assert torch.equal(torch.cat(pieces), run.weights()["user/id"])
    assert sorted(dense) == ["tower.bias", "tower.weight"]
    assert torch.equal(dense["tower.weight"], run.weights()["tower.weight"])
    assert json.loads((tmp_path / "out" / "index.json").read_text()) == index
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


def test_unsharding_needs_a_new_folder(root: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()

    with pytest.raises(CheckpointError, match="out is there already; choose another folder"):
        unshard(step_folder(root, 2), tmp_path / "out")


def test_a_failing_unshard_leaves_nothing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("recmoe.training.checkpoint_copies.write_file", full)

    with pytest.raises(OSError, match="disk full"):
        unshard(step_folder(root, 2), tmp_path / "out")

    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_resharded_checkpoint_has_files_for_every_worker_and_resumes(
    run: Any, root: Path, make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recmoe.training.pieces.SPLIT_BYTES", 1000)

    folder = reshard(step_folder(root, 2), tmp_path / "new", num_workers=3)

    resumed = make_run(tmp_path / "new", table="user/id")
    assert resumed.store.load(2) == {"step": 2}
    assert all(torch.equal(tensor, run.weights()[name]) for name, tensor in resumed.weights().items())
    run.train(2)
    resumed.train(2)
    assert all(torch.equal(tensor, run.weights()[name]) for name, tensor in resumed.weights().items())
    assert compare(step_folder(root, 2), folder)[1] == []
    assert verify(folder)["about"]["laid_out_for"] == 3
    sizes = [(folder / "tensors" / f"{rank}-0.safetensors").stat().st_size for rank in range(3)]
    assert max(sizes) < 1.1 * min(sizes)
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "rng-0.json", "state.json", "tensors"]


def test_resharding_replaces_no_checkpoint(root: Path) -> None:
    with pytest.raises(CheckpointError, match="step-00000002 is there already; choose another folder"):
        reshard(step_folder(root, 2), root, num_workers=2)


def test_a_failing_reshard_leaves_nothing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("recmoe.training.checkpoint_copies.write_boxes", full)

    with pytest.raises(OSError, match="disk full"):
        reshard(step_folder(root, 2), tmp_path / "new", num_workers=2)

    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("copy", [unshard, reshard])
def test_a_damaged_checkpoint_is_not_copied(copy: Callable[..., Any], root: Path, tmp_path: Path) -> None:
    (step_folder(root, 2) / "state.json").write_text("{}")
    arguments = {"num_workers": 2} if copy is reshard else {}

    with pytest.raises(CheckpointError, match=r"state\.json is damaged"):
        copy(step_folder(root, 2), tmp_path / "new", **arguments)

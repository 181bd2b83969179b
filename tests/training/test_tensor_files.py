"""Files of tensors: written in boxes, read in other boxes."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from recmoe.errors import CheckpointError
from recmoe.training import pieces
from recmoe.training.pieces import Piece, pieces_to_save, row_blocks
from recmoe.training.stored_tensors import INDEX, StoredTensor, StoredTensors, index_text, merge
from recmoe.training.tensor_files import Written, write_boxes

TABLE = torch.arange(60.0).reshape(10, 6)


def columns(first: int, last: int, name: str = "table") -> Piece:
    return Piece(name, (10, 6), (0, first), TABLE[:, first:last])


def write(folder: Path, *shares: list[Piece], max_file_bytes: int = 1 << 20) -> list[Written]:
    """Every share by a rank of its own, and the index."""
    written = [
        write_boxes(folder, share, prefix=str(rank), max_file_bytes=max_file_bytes) for rank, share in enumerate(shares)
    ]
    (folder / INDEX).write_text(index_text(merge(one.tensors for one in written)))
    return written


@pytest.fixture(params=[1, 40, 1 << 24], ids="blocks of {} bytes".format)
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """One row at a time, a few, all."""
    monkeypatch.setattr(pieces, "BLOCK_BYTES", request.param)
    return int(request.param)


@pytest.mark.parametrize("start", [(0, 0), (3, 0), (0, 2), (4, 1)])
@pytest.mark.usefixtures("block_bytes")
def test_any_box_of_column_shards_can_be_read(start: tuple[int, int], tmp_path: Path) -> None:
    write(tmp_path, [columns(0, 2)], [columns(2, 6)])
    row, column = start
    target = torch.full((6, 4), -1.0)

    with StoredTensors(tmp_path) as stored:
        stored.read_into(target, "table", start)

    assert torch.equal(target, TABLE[row : row + 6, column : column + 4])


@pytest.mark.usefixtures("block_bytes")
def test_reading_fills_a_view_of_a_larger_tensor(tmp_path: Path) -> None:
    write(tmp_path, [columns(0, 6)])
    target = torch.zeros(10, 8)

    with StoredTensors(tmp_path) as stored:
        stored.read_into(target[:, 1:7], "table", (0, 0))

    assert torch.equal(target[:, 1:7], TABLE)
    assert target[:, [0, 7]].eq(0).all()


@pytest.mark.parametrize(
    "values",
    [
        torch.tensor(3.5),
        torch.tensor([7], dtype=torch.int64),
        torch.ones(3, 2, dtype=torch.bfloat16),
        torch.zeros(0, 4),
    ],
    ids=["scalar", "int64", "bfloat16", "no rows"],
)
def test_every_kind_of_tensor_comes_back(values: Tensor, tmp_path: Path) -> None:
    write(tmp_path, [Piece("x", tuple(values.shape), (0,) * values.ndim, values)])
    target = torch.empty_like(values)

    with StoredTensors(tmp_path) as stored:
        stored.read_into(target, "x", (0,) * values.ndim)
        blocks = list(stored.box("x").blocks())

    assert torch.equal(target, values)
    assert sum(block.numel() for block in blocks) == values.numel()


def test_files_are_safetensors_and_their_hashes_those_of_their_content(tmp_path: Path) -> None:
    (written,) = write(tmp_path, [columns(0, 2), columns(2, 6)])

    content = (tmp_path / "0-0.safetensors").read_bytes()
    read = load_file(tmp_path / "0-0.safetensors")

    assert written.files == {"0-0.safetensors": {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}}
    assert {key: tensor.tolist() for key, tensor in read.items()} == {
        "table@0,0": TABLE[:, :2].tolist(),
        "table@0,2": TABLE[:, 2:].tolist(),
    }


def test_files_keep_below_their_limit(tmp_path: Path) -> None:
    (written,) = write(tmp_path, [columns(0, 6), columns(0, 6, "other")], max_file_bytes=100)

    with StoredTensors(tmp_path) as stored:
        parts = stored.tensors["table"].parts
        target = torch.empty(10, 6)
        stored.read_into(target, "other", (0, 0))

    # Rows are of 24 bytes: four of them in a file.
    assert [part.shape[0] for part in parts] == [4, 4, 2]
    assert [part.file for part in parts] == ["0-0.safetensors", "0-1.safetensors", "0-2.safetensors"]
    assert len(written.files) == 6
    assert torch.equal(target, TABLE)


def test_only_the_parts_asked_for_are_read(tmp_path: Path) -> None:
    write(tmp_path, [columns(0, 2)], [columns(2, 6)])
    (tmp_path / "1-0.safetensors").unlink()
    target = torch.empty(10, 2)

    with StoredTensors(tmp_path) as stored:
        stored.read_into(target, "table", (0, 0))

    assert torch.equal(target, TABLE[:, :2])


def test_parts_that_do_not_make_a_whole_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="table has 60 values, 40 were written"):
        write(tmp_path, [columns(2, 6)])


def test_a_box_with_a_hole_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [columns(0, 2)], [columns(2, 6)])
    index = json.loads((tmp_path / INDEX).read_text())
    index["table"]["parts"].pop()
    (tmp_path / INDEX).write_text(json.dumps(index))

    with StoredTensors(tmp_path) as stored, pytest.raises(CheckpointError, match="table has 20 of 60 values asked for"):
        stored.read_into(torch.empty(10, 6), "table", (0, 0))


def test_a_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [columns(0, 6)])
    path = tmp_path / "0-0.safetensors"
    path.write_bytes(path.read_bytes()[:-4])

    with StoredTensors(tmp_path) as stored, pytest.raises(CheckpointError, match=r"0-0\.safetensors ends too early"):
        stored.read_into(torch.empty(10, 6), "table", (0, 0))


@pytest.mark.parametrize("text", [None, "{", '{"table": {}}', "[]"])
def test_an_index_that_cannot_be_read_is_named(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / INDEX).write_text(text)

    with pytest.raises(CheckpointError, match=r"index\.json cannot be read"):
        StoredTensors(tmp_path)


def test_what_all_ranks_hold_is_saved_once_and_evenly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pieces, "SPLIT_BYTES", 100)
    tensors = {"table": TABLE, **{f"bias{number}": torch.full((2,), float(number)) for number in range(4)}}

    shares = [pieces_to_save(tensors, rank=rank, world_size=3) for rank in range(3)]
    write(tmp_path, *shares)

    assert [[piece.start[0] for piece in share if piece.name == "table"] for share in shares] == [[0], [3], [6]]
    assert [sum(piece.name != "table" for piece in share) for share in shares] == [2, 1, 1]
    with StoredTensors(tmp_path) as stored:
        for name, expected in tensors.items():
            target = torch.empty_like(expected)
            stored.read_into(target, name, (0,) * expected.ndim)
            assert torch.equal(target, expected)


def test_blocks_cover_every_row_once() -> None:
    assert list(row_blocks((10, 1 << 20), 4)) == [(0, 4), (4, 8), (8, 10)]
    assert list(row_blocks((2, 1 << 30), 4)) == [(0, 1), (1, 2)]
    assert list(row_blocks((), 4)) == [(0, 1)]
    assert list(row_blocks((0, 4), 4)) == []


def test_tensors_of_several_ranks_are_merged() -> None:
    one = StoredTensor(torch.float32, (2,), ())

    assert merge([{"a": one}, {"b": one}, {"a": one}]) == {"a": one, "b": one}

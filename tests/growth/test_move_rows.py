"""Tests of stored rows, moved into live tensors."""

from itertools import pairwise

import pytest
import torch

from recmoe.growth.move_rows import move_rows
from recmoe.training.pieces import Piece

STORED_VD = torch.arange(24.0).view(6, 4)


def boxes(*cuts: int) -> list[Piece]:
    """The stored rows in several boxes."""
    bounds = [0, *cuts, 6]
    return [Piece("t", (6, 4), (first, 0), STORED_VD[first:last]) for first, last in pairwise(bounds)]


@pytest.mark.parametrize("stored", [boxes(), boxes(2), boxes(1, 5)], ids=["whole", "two", "three"])
@pytest.mark.parametrize("block_bytes", [1 << 20, 2 * 16])
def test_rows_go_where_they_are_wanted_however_they_are_stored(
    stored: list[Piece], block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recmoe.training.pieces.BLOCK_BYTES", block_bytes)
    live = torch.full((5, 4), -1.0)

    move_rows(live, stored, torch.tensor([0, -1, 5, 2, 2]))

    assert torch.equal(live[[0, 2, 3, 4]], STORED_VD[[0, 5, 2, 2]])
    assert (live[1] == -1).all()


@pytest.mark.parametrize("stored", [boxes(), boxes(2)], ids=["whole", "two"])
def test_columns_go_where_they_are_wanted(stored: list[Piece]) -> None:
    live = torch.full((3, 5), -1.0)

    move_rows(live, stored, torch.tensor([3, -1, 0]), columns=[0, 1, 3, -1, 2])

    assert torch.equal(live[[0, 2]][:, [0, 1, 2, 4]], STORED_VD[[3, 0]][:, [0, 1, 3, 2]])
    assert (live[1] == -1).all()
    assert (live[:, 3] == -1).all()


def test_state_of_one_float_per_row_moves_alike() -> None:
    live = torch.zeros(3)
    stored = [Piece("t", (3,), (0,), torch.tensor([1.0, 2.0])), Piece("t", (3,), (2,), torch.tensor([3.0]))]

    move_rows(live, stored, torch.tensor([2, -1, 0]))

    assert live.tolist() == [3.0, 0.0, 1.0]


def test_blocks_without_a_wanted_row_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recmoe.training.pieces.BLOCK_BYTES", 16)
    read: list[int] = []
    rows = Piece.rows
    monkeypatch.setattr(Piece, "rows", lambda box, first, last: (read.append(first), rows(box, first, last))[1])

    move_rows(torch.zeros(3, 4), boxes(), torch.tensor([4, -1, 1]))

    assert read == [1, 4]

"""Tests of stored pieces, moved by row into live tensors."""

import pytest
import torch

from recmoe.embeddings.pieces import Piece, local_parts, move_rows

STORED_VD = torch.arange(24.0).view(6, 4)


def pieces(*cuts: tuple[slice, slice]) -> list[Piece]:
    return [Piece(STORED_VD[rows, columns], (rows.start, columns.start)) for rows, columns in cuts]


@pytest.mark.parametrize(
    "stored",
    [
        pieces((slice(0, 6), slice(0, 4))),
        pieces((slice(0, 2), slice(0, 4)), (slice(2, 6), slice(0, 4))),
        pieces((slice(0, 6), slice(2, 4)), (slice(0, 6), slice(0, 2))),
    ],
    ids=["whole", "rows", "columns"],
)
@pytest.mark.parametrize("rows_per_copy", [100, 2])
def test_rows_go_where_they_are_wanted_however_they_are_stored(
    stored: list[Piece], rows_per_copy: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recmoe.embeddings.pieces.ROWS_PER_COPY", rows_per_copy)
    live = torch.full((5, 4), -1.0)

    move_rows(live, stored, torch.tensor([0, -1, 5, 2, 2]))

    assert torch.equal(live[[0, 2, 3, 4]], STORED_VD[[0, 5, 2, 2]])
    assert (live[1] == -1).all()


def test_state_of_one_float_per_row_moves_alike() -> None:
    live = torch.zeros(3)

    move_rows(live, [Piece(torch.tensor([1.0, 2.0]), (0,)), Piece(torch.tensor([3.0]), (2,))], torch.tensor([2, -1, 0]))

    assert live.tolist() == [3.0, 0.0, 1.0]


def test_whole_tensor_is_one_part() -> None:
    (part,) = local_parts(STORED_VD)

    assert part.tensor is STORED_VD
    assert part.offsets == (0, 0)

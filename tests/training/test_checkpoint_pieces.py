"""Tests of the tensors of a checkpoint, read shard by shard."""

from pathlib import Path

import pytest
import torch
from torch import nn

from recmoe.embeddings.placement import place
from recmoe.embeddings.tables import TablesConfig
from recmoe.errors import CheckpointError
from recmoe.features.layout import InputLayout, SparseKey, TableSpec
from recmoe.training.checkpoint import save
from recmoe.training.checkpoint_pieces import CheckpointPieces

LAYOUT = InputLayout(
    tables=(TableSpec("user", 5, 4, "sum", ("user",)),),
    sparse=(SparseKey("user", "user", "user", "user", 4),),
    dense=(),
)


def test_pieces_hold_what_was_saved(tmp_path: Path) -> None:
    config = TablesConfig(backend="plain")
    model = nn.ModuleDict({"tables": config.build(layout=LAYOUT, seed=1), "tower": nn.Linear(4, 1)})
    placed = place(model, config=config, device=torch.device("cpu"))
    optimizer = torch.optim.AdamW(model["tower"].parameters())
    folder = tmp_path / "step-00000001"
    save(
        folder,
        model=placed.model,
        dense_optimizer=optimizer,
        table_optimizer=placed.table_optimizer,
        state={},
        fingerprint="f",
    )

    pieces = CheckpointPieces(folder)

    assert pieces.about["table_optimizer"] == "rowwise_adagrad"
    assert pieces.shapes == {
        "tables/user": (5, 4),
        "table_optimizer/user/sum": (5,),
        "dense/tower.weight": (1, 4),
        "dense/tower.bias": (1,),
    }
    (piece,) = pieces.pieces("tables/user")
    assert piece.offsets == (0, 0)
    assert torch.equal(piece.tensor, model["tables"].weight("user"))
    assert torch.equal(pieces.whole("dense/tower.weight"), model["tower"].weight)


def test_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*step-00000001"):
        CheckpointPieces(tmp_path / "step-00000001")

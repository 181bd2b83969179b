"""Tests of the weights that a run goes on from."""

from contextlib import closing
from pathlib import Path

import pytest
import torch
from torch import nn

from recmoe.embeddings.placement import place
from recmoe.embeddings.tables import TablesConfig
from recmoe.errors import CheckpointError
from recmoe.features.layout import InputLayout, SparseKey, TableSpec
from recmoe.growth.earlier import StoredCheckpoint
from recmoe.training.checkpoint import save

LAYOUT = InputLayout(
    tables=(TableSpec("user", 5, 4, "sum", ("user",)),),
    sparse=(SparseKey("user", "user", "user", "user", 4),),
    dense=(),
)


def test_checkpoint_gives_what_was_saved(tmp_path: Path) -> None:
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

    with closing(StoredCheckpoint(folder)) as stored:
        (box,) = stored.table("user")
        (sums,) = stored.table("user", "sum")
        (rows,) = box.blocks()
        weight, slots = stored.dense("tower.weight"), stored.dense_slots("tower.weight")
        nothing = stored.table("user", "step")

    assert stored.table_optimizer == "rowwise_adagrad"
    assert stored.dense_shapes == {"tower.weight": (1, 4), "tower.bias": (1,)}
    assert (box.shape, sums.shape, nothing, slots) == ((5, 4), (5,), [], {})
    assert torch.equal(rows, model["tables"].weight("user"))
    assert torch.equal(weight, model["tower"].weight)


def test_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*step-00000001"):
        StoredCheckpoint(tmp_path / "step-00000001")

"""A small model with its optimizers and its store of checkpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recmoe.embeddings.logical import dense_parameters, dense_state
from recmoe.embeddings.placement import place
from recmoe.embeddings.tables import TablesConfig
from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout, SparseKey, TableSpec
from recmoe.training.checkpoint import CheckpointStore
from recmoe.training.runtime import start_runtime

FINGERPRINT = "f" * 64


class PlainModel(nn.Module):
    """One table of 1,000 rows × 4 and a linear layer."""

    def __init__(self, layout: InputLayout, config: TablesConfig) -> None:
        super().__init__()
        self.tables = config.build(layout=layout, seed=1)
        self.tower = nn.Linear(4, 1)

    def forward(self, batch: Batch) -> Tensor:
        return nn.functional.softplus(self.tower(self.tables(batch))).mean()


class PlainRun:
    """Trains on batches that depend on the step alone."""

    def __init__(self, root: Path, *, table: str = "user", **store: Any) -> None:
        layout = InputLayout(
            tables=(TableSpec(table, 1000, 4, "sum", ("user",)),),
            sparse=(SparseKey("user", "user", "user", table, 4),),
            dense=(),
        )
        config = TablesConfig.model_validate({"backend": "plain", "optimizer": {"kind": "rowwise_adagrad"}})
        torch.manual_seed(0)
        placed = place(PlainModel(layout, config), config=config, device=torch.device("cpu"))
        self.table = table
        self.model, self.table_optimizer = placed.model, placed.table_optimizer
        self.dense_optimizer = torch.optim.AdamW([p for _, p in dense_parameters(self.model)])
        self.parts: dict[str, Any] = {
            "model": self.model,
            "dense_optimizer": self.dense_optimizer,
            "table_optimizer": self.table_optimizer,
            "fingerprint": FINGERPRINT,
        }
        self.store = CheckpointStore(root, **self.parts, **store)

    def train(self, *steps: int) -> None:
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            values = torch.randint(0, 1000, (64,), generator=generator)
            batch = Batch(torch.zeros(64, 0), torch.ones(1, 64, dtype=torch.int32), values, torch.zeros(64, 0))
            self.dense_optimizer.zero_grad()
            self.model(batch).backward()
            self.dense_optimizer.step()
            self.table_optimizer.step()

    def weights(self) -> dict[str, Tensor]:
        tables = self.model.tables.table_weights()
        return {name: tensor.clone() for name, tensor in {**tables, **dense_state(self.model)}.items()}


@pytest.fixture
def make_run() -> Callable[..., PlainRun]:
    """Makes a run; arguments are the folder of its checkpoints and those of its store."""
    start_runtime(device="cpu")
    return PlainRun

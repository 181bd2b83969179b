"""SmallRun: a model of a few tables whose state after a step depends on nothing but the step."""

# K sparse keys

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recmoe.embeddings.logical import dense_parameters
from recmoe.embeddings.placement import place
from recmoe.embeddings.tables import TablesConfig
from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout, SparseKey, TableSpec
from recmoe.training.checkpoint import CheckpointStore

FINGERPRINT = "f" * 64


def layout_of(num_rows: int, width: int) -> InputLayout:
    """Four tables; two keys share the second."""
    names = ("user", "tags", "tags", "item", "place")
    keys = ("user", "likes", "tags", "item", "place")
    tables = {
        name: TableSpec(name, num_rows, width, "mean" if name == "tags" else "sum", tuple(
            key for key, table in zip(keys, names, strict=True) if table == name
        ))
        for name in names
    }  # fmt: skip
    sparse = tuple(SparseKey(key, key, "user", table, width) for key, table in zip(keys, names, strict=True))
    return InputLayout(tables=tuple(tables.values()), sparse=sparse, dense=())


class SmallModel(nn.Module):
    """Tables and a tower."""

    def __init__(self, tables: nn.Module, in_features: int) -> None:
        super().__init__()
        self.tables = tables
        self.tower = nn.Sequential(nn.Linear(in_features, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, batch: Batch) -> Tensor:
        return nn.functional.softplus(self.tower(self.tables(batch))).mean()


class SmallRun:
    """A model with its optimizers and its store, on one rank.

    Args:
        root: folder of checkpoints.
        tables: values of a ``TablesConfig``.
        batch_rows: of all ranks together.
        num_ids: that occur; larger tables have rows that are never touched.
        store: arguments of the store.
    """

    def __init__(
        self,
        root: Path,
        tables: dict[str, Any],
        *,
        rank: int = 0,
        world_size: int = 1,
        num_rows: int = 64,
        width: int = 16,
        batch_rows: int = 16,
        num_ids: int = 40,
        **store: Any,
    ) -> None:
        self.rank, self.world_size = rank, world_size
        self._batch_rows, self._num_ids = batch_rows, num_ids
        layout = layout_of(num_rows, width)
        self._num_keys = len(layout.sparse)
        config = TablesConfig.model_validate(tables)
        torch.manual_seed(0)
        model = SmallModel(config.build(layout=layout, seed=1), self._num_keys * width)
        self.placed = place(model, config=config, device=torch.device("cpu"))
        self.dense_optimizer = torch.optim.AdamW([p for _, p in dense_parameters(self.placed.model)], fused=True)
        self.parts: dict[str, Any] = {
            "model": self.placed.model,
            "dense_optimizer": self.dense_optimizer,
            "table_optimizer": self.placed.table_optimizer,
            "fingerprint": FINGERPRINT,
        }
        self.store = CheckpointStore(root, **self.parts, **store)

    def train(self, first: int, last: int) -> None:
        """Steps first … last - 1."""
        for step in range(first, last):
            self.placed.table_optimizer.scale_lr(1.0 / (step + 1))
            self.dense_optimizer.zero_grad()
            self.placed.model(self._share(step)).backward()
            self.dense_optimizer.step()
            self.placed.table_optimizer.step()

    def _share(self, step: int) -> Batch:
        """This rank's rows of the batch of a step, which is the same for every world size."""
        generator = torch.Generator().manual_seed(step)
        lengths_KB = torch.randint(0, 4, (self._num_keys, self._batch_rows), generator=generator, dtype=torch.int32)
        values = torch.randint(0, self._num_ids, (int(lengths_KB.sum()),), generator=generator)
        bags = torch.split(values, lengths_KB.reshape(-1).tolist())
        size = self._batch_rows // self.world_size
        rows = range(self.rank * size, (self.rank + 1) * size)
        mine = [bags[key * self._batch_rows + row] for key in range(self._num_keys) for row in rows]
        return Batch(
            torch.zeros(size, 0),
            lengths_KB[:, rows.start : rows.stop].contiguous(),
            torch.cat(mine),
            torch.zeros(size, 0),
        )

"""The fused, sharded step and the plain one are the same step."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recmoe.embeddings.logical import dense_parameters, dense_state, gather, logical_tables
from recmoe.embeddings.placement import place
from recmoe.embeddings.tables import TablesConfig
from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout, SparseKey, TableSpec
from recmoe.training.runtime import start_runtime

LAYOUT = InputLayout(
    tables=(TableSpec("tag", 20, 4, "mean", ("query", "tags")), TableSpec("shop", 30, 8, "sum", ("shop",))),
    sparse=(
        SparseKey("query", "query", "user", "tag", 4),
        SparseKey("tags", "tags", "item", "tag", 4),
        SparseKey("shop", "shop", "item", "shop", 8),
    ),
    dense=(),
)


class Model(nn.Module):
    def __init__(self, tables: nn.Module) -> None:
        super().__init__()
        self.tables = tables
        torch.manual_seed(0)
        self.tower = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, batch: Batch) -> Tensor:
        return nn.functional.softplus(self.tower(self.tables(batch))).mean()


def batch_of(step: int) -> Batch:
    """Eight rows with up to three ids per key, repeated ids and empty bags among them."""
    generator = torch.Generator().manual_seed(step)
    lengths_KB = torch.randint(0, 4, (3, 8), generator=generator, dtype=torch.int32)
    values = torch.randint(0, 20, (int(lengths_KB.sum()),), generator=generator)
    return Batch(torch.zeros(8, 0), lengths_KB, values, torch.zeros(8, 0))


def trained(values: dict[str, Any]) -> dict[str, Tensor]:
    """Everything that training changes, after four steps with a falling rate."""
    config = TablesConfig.model_validate(values)
    placed = place(Model(config.build(layout=LAYOUT, seed=1)), config=config, device=torch.device("cpu"))
    dense = torch.optim.AdamW([parameter for _, parameter in dense_parameters(placed.model)])
    for step in range(4):
        placed.table_optimizer.scale_lr(1.0 / (step + 1))
        dense.zero_grad()
        placed.model(batch_of(step)).backward()
        dense.step()
        placed.table_optimizer.step()
    slots = {
        f"{table}/{slot}": gather(tensor).clone()
        for table, state in placed.table_optimizer.state().items()
        for slot, tensor in state.items()
    }
    return {**{name: w.clone() for name, w in logical_tables(placed.model)}, **slots, **dense_state(placed.model)}


@pytest.mark.parametrize("shop", ["table_wise", "column_wise", "row_wise", "grid_shard", "data_parallel"])
@pytest.mark.parametrize("kind", ["rowwise_adagrad", "adagrad", "sgd"])
def test_sharded_step_equals_plain_step(kind: str, shop: str) -> None:
    if kind == "rowwise_adagrad" and shop in ("column_wise", "grid_shard"):
        pytest.skip("refused: one sum per row does not survive a cut through rows")
    start_runtime(device="cpu")
    optimizer = {"kind": kind, "lr": 0.1}

    plain = trained({"backend": "plain", "optimizer": optimizer})
    sharded = trained({"backend": "torchrec", "optimizer": optimizer, "sharding": {"shop": shop}})

    assert sharded.keys() == plain.keys()
    for name, expected in plain.items():
        torch.testing.assert_close(sharded[name], expected, rtol=1e-5, atol=1e-7, msg=name)

"""The fused, sharded step and the plain one are the same step."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recmoe.embeddings.logical import dense_parameters, dense_state, gather, logical_tables
from recmoe.embeddings.placement import place
from recmoe.embeddings.sharding_config import SHARDS_SEQUENCES
from recmoe.embeddings.tables import TablesConfig
from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout, SequenceSpec, SparseKey, TableSpec
from recmoe.sequence import MeanHistoryConfig
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


HISTORY = replace(
    LAYOUT,
    tables=(LAYOUT.tables[0], TableSpec("shop", 30, 8, "sum", ("history#shop", "shop"))),
    sparse=(
        *LAYOUT.sparse[:2],
        SparseKey("history#shop", "history", "user", "shop", 8, is_list=True, is_sequence=True),
        LAYOUT.sparse[2],
    ),
    sequences=(SequenceSpec("history", "user", ("history#shop",), 3, has_ages=False, encoder=MeanHistoryConfig()),),
)
"""The same, with a history of shops: their table gives a vector per id."""


class Model(nn.Module):
    """A tower over pooled vectors; entries of a history enter as their squares, so that each counts alone."""

    def __init__(self, tables: nn.Module) -> None:
        super().__init__()
        self.tables = tables
        torch.manual_seed(0)
        self.tower = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, batch: Batch) -> Tensor:
        found = self.tables.look_up(batch)
        loss: Tensor = nn.functional.softplus(self.tower(found.pooled_BP)).mean()
        return loss + sum(entries_ND.add(0.1).square().sum() for entries_ND in found.entries.values())


def batch_of(step: int, num_keys: int) -> Batch:
    """Eight rows with up to three ids per key, repeated ids and empty bags among them."""
    generator = torch.Generator().manual_seed(step)
    lengths_KB = torch.randint(0, 4, (num_keys, 8), generator=generator, dtype=torch.int32)
    values = torch.randint(0, 20, (int(lengths_KB.sum()),), generator=generator)
    return Batch(torch.zeros(8, 0), lengths_KB, values, torch.zeros(8, 0))


def trained(values: dict[str, Any], layout: InputLayout) -> dict[str, Tensor]:
    """Everything that training changes, after four steps with a falling rate."""
    config = TablesConfig.model_validate(values)
    placed = place(Model(config.build(layout=layout, seed=1)), config=config, device=torch.device("cpu"))
    dense = torch.optim.AdamW([parameter for _, parameter in dense_parameters(placed.model)])
    for step in range(4):
        placed.table_optimizer.scale_lr(1.0 / (step + 1))
        dense.zero_grad()
        placed.model(batch_of(step, len(layout.sparse))).backward()
        dense.step()
        placed.table_optimizer.step()
    slots = {
        f"{table}/{slot}": gather(tensor).clone()
        for table, state in placed.table_optimizer.state().items()
        for slot, tensor in state.items()
    }
    return {**{name: w.clone() for name, w in logical_tables(placed.model)}, **slots, **dense_state(placed.model)}


@pytest.mark.parametrize("layout", [LAYOUT, HISTORY], ids=["pooled", "history"])
@pytest.mark.parametrize("shop", ["table_wise", "column_wise", "row_wise", "grid_shard", "data_parallel"])
@pytest.mark.parametrize("kind", ["rowwise_adagrad", "adagrad", "sgd"])
def test_sharded_step_equals_plain_step(kind: str, shop: str, layout: InputLayout) -> None:
    if layout.sequences and shop not in SHARDS_SEQUENCES:
        pytest.skip("refused: torchrec does not have it for single rows")
    if kind == "rowwise_adagrad" and shop in ("column_wise", "grid_shard"):
        pytest.skip("refused: one sum per row does not survive a cut through rows")
    start_runtime(device="cpu")
    optimizer = {"kind": kind, "lr": 0.1}

    plain = trained({"backend": "plain", "optimizer": optimizer}, layout)
    sharded = trained({"backend": "torchrec", "optimizer": optimizer, "sharding": {"shop": shop}}, layout)

    assert sharded.keys() == plain.keys()
    for name, expected in plain.items():
        torch.testing.assert_close(sharded[name], expected, rtol=1e-5, atol=1e-7, msg=name)

"""Sharded tables and their fused optimizer, in a world of one."""

import dataclasses

import pytest
import torch
from torch import nn

from recmoe.embeddings.logical import gather, logical_tables
from recmoe.embeddings.placement import PlacedModel, place
from recmoe.embeddings.tables import PlainTables, TablesConfig
from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout

pytestmark = pytest.mark.usefixtures("one_process")
CPU = torch.device("cpu")


class Model(nn.Module):
    def __init__(self, tables: nn.Module) -> None:
        super().__init__()
        self.tables = tables
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, batch: Batch) -> torch.Tensor:
        result: torch.Tensor = self.tables(batch) * self.scale
        return result


def sharded(layout: InputLayout, config: TablesConfig) -> PlacedModel:
    return place(Model(config.build(layout=layout, seed=3)), config=config, device=CPU)


def test_initial_values_equal_the_plain_back_ends(layout: InputLayout) -> None:
    plain = PlainTables(layout, seed=3)

    found = dict(logical_tables(sharded(layout, TablesConfig(backend="torchrec")).model))

    assert all(torch.equal(found[name], weight) for name, weight in plain.table_weights().items())


@pytest.mark.parametrize(
    "sharding", [{}, {"tag": "data_parallel"}, {"tag": "column_wise", "type": "data_parallel"}], ids=str
)
def test_output_stands_in_layout_order(layout: InputLayout, batch: Batch, sharding: dict[str, str]) -> None:
    config = TablesConfig.model_validate(
        {"backend": "torchrec", "sharding": sharding, "optimizer": {"kind": "adagrad"}}
    )
    plain = PlainTables(layout, seed=3)

    pooled_BP = sharded(layout, config).model(batch)

    torch.testing.assert_close(pooled_BP, plain(batch), rtol=0, atol=1e-8)


def test_a_batch_without_ids_gives_zeros_and_changes_nothing(layout: InputLayout, batch: Batch) -> None:
    placed = sharded(layout, TablesConfig(backend="torchrec"))
    empty = dataclasses.replace(batch, lengths_KB=torch.zeros_like(batch.lengths_KB), values=batch.values[:0])
    before = {name: weight.clone() for name, weight in logical_tables(placed.model)}

    pooled_BP = placed.model(empty)
    pooled_BP.sum().backward()

    assert pooled_BP.abs().sum().item() == 0.0
    assert all(torch.equal(weight, before[name]) for name, weight in logical_tables(placed.model))


def test_inference_mode_gives_the_same_and_training_goes_on(layout: InputLayout, batch: Batch) -> None:
    placed = sharded(layout, TablesConfig(backend="torchrec"))

    with torch.inference_mode():
        inferred_BP = placed.model(dataclasses.replace(batch, values=batch.values.clone()))
    trained_BP = placed.model(batch)
    trained_BP.sum().backward()

    assert torch.equal(inferred_BP, trained_BP)


@pytest.mark.parametrize("sharding", ["table_wise", "data_parallel"])
def test_rate_of_zero_changes_nothing(layout: InputLayout, batch: Batch, sharding: str) -> None:
    config = TablesConfig.model_validate({"backend": "torchrec", "sharding": {"tag": sharding}})
    placed = sharded(layout, config)
    before = {name: weight.clone() for name, weight in logical_tables(placed.model)}

    placed.table_optimizer.set_lr(0.0)
    placed.model(batch).sum().backward()
    placed.table_optimizer.step()

    assert placed.table_optimizer.lr == 0.0
    assert all(torch.equal(weight, before[name]) for name, weight in logical_tables(placed.model))


def test_dropped_gradients_of_replicated_tables_are_not_applied(layout: InputLayout, batch: Batch) -> None:
    config = TablesConfig.model_validate({"backend": "torchrec", "sharding": {"tag": "data_parallel"}})
    placed = sharded(layout, config)
    before = dict(logical_tables(placed.model))["tag"].clone()

    placed.model(batch).sum().backward()
    placed.table_optimizer.zero_grad()
    placed.table_optimizer.step()

    assert torch.equal(dict(logical_tables(placed.model))["tag"], before)


def test_state_is_named_like_the_plain_optimizers(layout: InputLayout, batch: Batch) -> None:
    states = {}

    for backend in ("plain", "torchrec"):
        config = TablesConfig.model_validate({"backend": backend})
        placed = sharded(layout, config)
        placed.model(batch).sum().backward()
        placed.table_optimizer.step()
        states[backend] = {
            (table, slot): tuple(gather(tensor).shape)
            for table, slots in placed.table_optimizer.state().items()
            for slot, tensor in slots.items()
        }

    assert states["torchrec"] == states["plain"]
    assert states["plain"] == {("tag", "sum"): (10,), ("shop.id", "sum"): (7,), ("type", "sum"): (5,)}

"""The logical model inside what wraps it."""

import pytest
import torch
from torch import nn

from recmoe.embeddings.logical import copy_into, dense_parameters, dense_state, find_tables, logical_tables
from recmoe.embeddings.placement import place
from recmoe.embeddings.tables import PlainTables, TablesConfig
from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout


class Model(nn.Module):
    def __init__(self, tables: nn.Module) -> None:
        super().__init__()
        self.tables = tables
        self.linear = nn.Linear(20, 1)
        self.register_buffer("usage", torch.zeros(3))
        self.register_buffer("scratch", torch.zeros(3), persistent=False)

    def forward(self, batch: Batch) -> torch.Tensor:
        result: torch.Tensor = self.linear(self.tables(batch))
        return result


def test_dense_parameters_leave_the_tables_out(layout: InputLayout) -> None:
    model = Model(PlainTables(layout))

    assert [name for name, _ in dense_parameters(model)] == ["linear.weight", "linear.bias"]
    assert list(dense_state(model)) == ["linear.weight", "linear.bias", "usage"]
    assert find_tables(model)[0] == "tables"


def test_logical_tables_come_whole_and_in_order(layout: InputLayout) -> None:
    tables = PlainTables(layout)

    found = list(logical_tables(Model(tables)))

    assert [name for name, _ in found] == ["tag", "shop.id", "type"]
    assert all(torch.equal(weight, tables.weight(name)) for name, weight in found)


@pytest.mark.usefixtures("one_process")
def test_a_sharded_model_is_copied_into_a_plain_one(layout: InputLayout, batch: Batch) -> None:
    config = TablesConfig(backend="torchrec")
    sharded = place(Model(config.build(layout=layout, seed=5)), config=config, device=torch.device("cpu")).model
    plain = Model(PlainTables(layout, seed=6))

    copy_into(plain, sharded)

    assert torch.equal(plain(batch), sharded(batch))


@pytest.mark.usefixtures("one_process")
def test_names_do_not_depend_on_the_back_end(layout: InputLayout) -> None:
    config = TablesConfig(backend="torchrec")
    sharded = place(Model(config.build(layout=layout, seed=5)), config=config, device=torch.device("cpu")).model
    plain = Model(PlainTables(layout))

    copy_into(None, sharded)

    assert list(dense_state(sharded)) == list(dense_state(plain))
    assert [name for name, _ in dense_parameters(sharded)] == [name for name, _ in dense_parameters(plain)]

"""Tables of which a sequence reads single rows, in both back ends."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from recmoe.embeddings.logical import logical_tables
from recmoe.embeddings.placement import place
from recmoe.embeddings.tables import LookedUp, PlainTables, TablesConfig
from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout

CPU = torch.device("cpu")


class Model(nn.Module):
    def __init__(self, tables: nn.Module) -> None:
        super().__init__()
        self.tables = tables
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, batch: Batch) -> LookedUp:
        found = self.tables.look_up(batch)
        return LookedUp(found.pooled_BP * self.scale, {key: part * self.scale for key, part in found.entries.items()})


def all_of(found: LookedUp) -> dict[str, Tensor]:
    return {"pooled": found.pooled_BP, **found.entries}


def emptied(batch: Batch, *keys: int) -> Batch:
    """Without the ids of some keys."""
    ids = list(batch.values.split(batch.lengths_KB.sum(dim=1).tolist()))
    lengths_KB = batch.lengths_KB.clone()
    for key in keys:
        ids[key] = ids[key][:0]
        lengths_KB[key] = 0
    return dataclasses.replace(batch, values=torch.cat(ids), lengths_KB=lengths_KB)


def test_every_entry_of_a_sequence_gets_its_own_vector(history_layout: InputLayout, history_batch: Batch) -> None:
    tables = PlainTables(history_layout)

    found = tables.look_up(history_batch)

    assert list(found.entries) == ["history#item", "seen#item", "history#act.ion"]
    assert torch.equal(found.entries["history#item"], tables.weight("item")[[3, 4, 3], :4])
    assert torch.equal(found.entries["seen#item"], tables.weight("item")[[8], :4])
    assert torch.equal(found.entries["history#act.ion"], tables.weight("act.ion")[[1, 0, 2]])


def test_other_keys_of_its_table_are_pooled_with_their_linear_part(
    history_layout: InputLayout, history_batch: Batch
) -> None:
    tables = PlainTables(history_layout)
    nn.init.normal_(tables.weight("item"))

    pooled_BP = tables.look_up(history_batch).pooled_BP

    item_VD = tables.weight("item")
    assert pooled_BP.shape == (2, 4 * 8)
    assert torch.equal(pooled_BP[:, 8:16], item_VD[[3, 7]])
    torch.testing.assert_close(pooled_BP[:, 16:24], torch.stack([torch.zeros(8), (item_VD[5] + item_VD[9]) / 2]))


def test_sequences_of_one_side_are_looked_up_alone(history_layout: InputLayout, history_batch: Batch) -> None:
    tables = PlainTables(history_layout)
    own_keys = [place for place, key in enumerate(history_layout.sparse) if key.side == "item"]
    ids = history_batch.values.split(history_batch.lengths_KB.sum(dim=1).tolist())
    own = dataclasses.replace(
        history_batch,
        values=torch.cat([ids[key] for key in own_keys]),
        lengths_KB=history_batch.lengths_KB[own_keys],
    )

    found = tables.look_up(own, history_layout.select(("item",)).sparse)

    whole = tables.look_up(history_batch)
    assert torch.equal(found.pooled_BP, whole.pooled_BP[:, 8:])
    assert list(found.entries) == ["seen#item"]
    assert torch.equal(found.entries["seen#item"], whole.entries["seen#item"])


def test_sequences_alone_give_no_pooled_columns(history_layout: InputLayout, history_batch: Batch) -> None:
    keys = tuple(key for key in history_layout.sparse if key.name == "history#act.ion")
    batch = dataclasses.replace(history_batch, values=torch.tensor([1, 0, 2]), lengths_KB=history_batch.lengths_KB[5:6])

    found = PlainTables(history_layout).look_up(batch, keys)

    assert found.pooled_BP.shape == (2, 0)
    assert found.entries["history#act.ion"].shape == (3, 4)


def test_gradients_of_all_keys_of_a_table_are_one_sparse_gradient(
    history_layout: InputLayout, history_batch: Batch
) -> None:
    tables = PlainTables(history_layout)

    found = tables.look_up(history_batch)
    (found.pooled_BP.sum() + sum(part.sum() for part in found.entries.values())).backward()

    gradient = tables.weight("item").grad
    assert gradient is not None
    assert gradient.is_sparse
    dense_VD = gradient.to_dense()
    # Row 3: twice of the history, once as the item; row 8: of a history, which has no linear part; row 5: half a mean.
    assert dense_VD[[3, 8, 5, 1], 0].tolist() == [3.0, 1.0, 0.5, 0.0]
    assert dense_VD[[3, 8, 5, 1], 7].tolist() == [1.0, 0.0, 0.5, 0.0]


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize(
    "sharding",
    [{}, {"item": "row_wise"}, {"item": "column_wise", "act.ion": "column_wise"}, {"user": "data_parallel"}],
    ids=str,
)
@pytest.mark.parametrize("emptied_keys", [(), (1, 5), (1, 3, 4, 5)], ids=["ids", "empty history", "no lists"])
def test_sharded_tables_find_what_plain_ones_find(
    history_layout: InputLayout, history_batch: Batch, sharding: dict[str, str], emptied_keys: tuple[int, ...]
) -> None:
    config = TablesConfig.model_validate(
        {"backend": "torchrec", "sharding": sharding, "optimizer": {"kind": "adagrad"}}
    )
    model = place(Model(config.build(layout=history_layout, seed=3)), config=config, device=CPU).model
    batch = emptied(history_batch, *emptied_keys)

    found = all_of(model(batch))

    expected = all_of(PlainTables(history_layout, seed=3).look_up(batch))
    assert found.keys() == expected.keys()
    for name, part in expected.items():
        torch.testing.assert_close(found[name], part, rtol=0, atol=1e-8, msg=name)


@pytest.mark.usefixtures("one_process")
def test_empty_sequences_change_nothing_and_break_nothing(history_layout: InputLayout, history_batch: Batch) -> None:
    config = TablesConfig(backend="torchrec")
    placed = place(Model(config.build(layout=history_layout, seed=3)), config=config, device=CPU)
    before = {name: weight.clone() for name, weight in logical_tables(placed.model)}

    found = placed.model(emptied(history_batch, 1, 2, 3, 4, 5))
    sum(part.square().sum() for part in found.entries.values()).backward()

    after = dict(logical_tables(placed.model))
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


@pytest.mark.usefixtures("one_process")
def test_sharded_sequences_are_looked_up_in_inference_mode(history_layout: InputLayout, history_batch: Batch) -> None:
    config = TablesConfig(backend="torchrec")
    placed = place(Model(config.build(layout=history_layout, seed=3)), config=config, device=CPU)

    with torch.inference_mode():
        found = all_of(placed.model(history_batch))

    expected = all_of(PlainTables(history_layout, seed=3).look_up(history_batch))
    assert all(torch.equal(found[name], part) for name, part in expected.items())


@pytest.mark.parametrize("kind", ["data_parallel", "table_row_wise"])
def test_a_sharding_that_sequences_do_not_have_is_a_problem(history_layout: InputLayout, kind: str) -> None:
    config = TablesConfig.model_validate({"backend": "torchrec", "sharding": {"item": kind, "user": kind}})

    problems = list(config.launch_problems(layout=history_layout, device_type="cpu", world_size=2))

    assert problems == [
        (
            "sharding.item",
            f"a sequence reads table item row by row, which {kind} cannot do; use one of table_wise, column_wise, "
            "row_wise",
        )
    ]

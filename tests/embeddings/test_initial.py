"""Initial values of tables."""

import pytest
import torch

from recmoe.embeddings.initial import ROWS_PER_BLOCK, fill_initial


def test_initial_values_depend_on_seed_and_name_alone() -> None:
    first, again, other_seed, other_name = (torch.empty(5, 2) for _ in range(4))

    fill_initial(first, seed=1, table="user", num_rows=5, width=2, std=0.1)
    fill_initial(again, seed=1, table="user", num_rows=5, width=2, std=0.1)
    fill_initial(other_seed, seed=2, table="user", num_rows=5, width=2, std=0.1)
    fill_initial(other_name, seed=1, table="item", num_rows=5, width=2, std=0.1)

    assert torch.equal(first, again)
    assert not torch.equal(first, other_seed)
    assert not torch.equal(first, other_name)


def test_a_shard_is_a_cut_of_the_whole() -> None:
    num_rows = ROWS_PER_BLOCK + 10
    whole, shard = torch.empty(num_rows, 4), torch.empty(20, 2)

    fill_initial(whole, seed=1, table="user", num_rows=num_rows, width=4, std=0.1)
    fill_initial(shard, seed=1, table="user", num_rows=num_rows, width=4, std=0.1, row=ROWS_PER_BLOCK - 10, column=2)

    assert torch.equal(shard, whole[ROWS_PER_BLOCK - 10 :, 2:])


def test_initial_values_have_the_standard_deviation() -> None:
    table = torch.empty(10_000, 4)

    fill_initial(table, seed=0, table="user", num_rows=10_000, width=4, std=0.5)

    assert table.std().item() == pytest.approx(0.5, rel=0.02)
    assert table.mean().item() == pytest.approx(0.0, abs=0.01)

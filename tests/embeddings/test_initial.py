"""Initial values of tables."""

import pytest
import torch

from recmoe.embeddings.initial import ROWS_PER_BLOCK, fill_initial
from recmoe.features.layout import TableSpec


def spec(num_rows: int, width: int, *, name: str = "user", num_linear: int = 0) -> TableSpec:
    return TableSpec(name, num_rows, width, "sum", (name,), num_linear)


def test_initial_values_depend_on_seed_and_name_alone() -> None:
    first, again, other_seed, other_name = (torch.empty(5, 2) for _ in range(4))

    fill_initial(first, spec=spec(5, 2), seed=1, std=0.1)
    fill_initial(again, spec=spec(5, 2), seed=1, std=0.1)
    fill_initial(other_seed, spec=spec(5, 2), seed=2, std=0.1)
    fill_initial(other_name, spec=spec(5, 2, name="item"), seed=1, std=0.1)

    assert torch.equal(first, again)
    assert not torch.equal(first, other_seed)
    assert not torch.equal(first, other_name)


def test_a_shard_is_a_cut_of_the_whole() -> None:
    num_rows = ROWS_PER_BLOCK + 10
    whole, shard = torch.empty(num_rows, 4), torch.empty(20, 2)

    fill_initial(whole, spec=spec(num_rows, 4), seed=1, std=0.1)
    fill_initial(shard, spec=spec(num_rows, 4), seed=1, std=0.1, row=ROWS_PER_BLOCK - 10, column=2)

    assert torch.equal(shard, whole[ROWS_PER_BLOCK - 10 :, 2:])


def test_linear_part_is_zero_and_changes_no_vector() -> None:
    vectors, whole = torch.empty(5, 4), torch.full((5, 8), 9.0)

    fill_initial(vectors, spec=spec(5, 4), seed=1, std=0.1)
    fill_initial(whole, spec=spec(5, 8, num_linear=4), seed=1, std=0.1)

    assert torch.equal(whole[:, :4], vectors)
    assert torch.equal(whole[:, 4:], torch.zeros(5, 4))


@pytest.mark.parametrize(("column", "width"), [(0, 2), (2, 4), (4, 4), (6, 2)])
def test_columns_of_a_shard_may_be_vector_or_linear_part_or_both(column: int, width: int) -> None:
    whole, shard = torch.empty(5, 8), torch.full((3, width), 9.0)

    fill_initial(whole, spec=spec(5, 8, num_linear=4), seed=1, std=0.1)
    fill_initial(shard, spec=spec(5, 8, num_linear=4), seed=1, std=0.1, row=1, column=column)

    assert torch.equal(shard, whole[1:4, column : column + width])


def test_initial_values_have_the_standard_deviation() -> None:
    table = torch.empty(10_000, 4)

    fill_initial(table, spec=spec(10_000, 4), seed=0, std=0.5)

    assert table.std().item() == pytest.approx(0.5, rel=0.02)
    assert table.mean().item() == pytest.approx(0.0, abs=0.01)

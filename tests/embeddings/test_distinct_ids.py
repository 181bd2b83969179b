"""Batches whose repeated ids are looked up once."""

import torch

from recmoe.embeddings.distinct_ids import DistinctIds
from recmoe.embeddings.placement import place
from recmoe.embeddings.tables import PlainTables, TablesConfig
from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout, SparseKey, TableSpec
from recmoe.training.runtime import start_runtime

LAYOUT = InputLayout(
    tables=(
        TableSpec("user", 10, 4, "sum", ("user",)),
        TableSpec("tags", 5, 8, "mean", ("tags", "query")),
    ),
    sparse=(
        SparseKey("user", "user", "user", "user", 4),
        SparseKey("tags", "tags", "item", "tags", 8),
        SparseKey("query", "query", "user", "tags", 8),
    ),
    dense=(),
)


def batch_of(users: list[int], tags: list[list[int]], queries: list[int]) -> Batch:
    num_rows = len(users)
    lengths = [[1] * num_rows, [len(row) for row in tags], [1] * num_rows]
    values = [*users, *(tag for row in tags for tag in row), *queries]
    return Batch(
        torch.zeros(num_rows, 0),
        torch.tensor(lengths, dtype=torch.int32),
        torch.tensor(values, dtype=torch.int64),
        torch.zeros(num_rows, 0),
    )


def test_single_ids_are_kept_once_and_lists_as_they_are() -> None:
    batch = batch_of([7, 3, 7], [[1], [], [1, 4]], [4, 4, 4])

    jagged = DistinctIds(LAYOUT)(batch)

    assert jagged.values().tolist() == [3, 7, 1, 1, 4, 4]
    assert jagged.lengths().tolist() == [1, 1, 1, 0, 2, 1]
    assert jagged.stride_per_key() == [2, 3, 1]
    assert jagged.inverse_indices()[0] == ["user", "tags", "query"]
    assert jagged.inverse_indices()[1].tolist() == [[1, 0, 1], [0, 1, 2], [0, 0, 0]]


def test_lists_alone_stay_as_they_are() -> None:
    batch = batch_of([7, 3], [[1], []], [4, 4])
    batch.lengths_KB[0] = torch.tensor([2, 0])
    batch.lengths_KB[2] = torch.tensor([0, 2])

    jagged = DistinctIds(LAYOUT)(batch)

    assert jagged.values().tolist() == [7, 3, 1, 4, 4]
    assert jagged.stride_per_key() == [2, 2, 2]


def test_vectors_of_distinct_ids_are_those_of_all_ids() -> None:
    start_runtime(device="cpu")
    config = TablesConfig(backend="torchrec", dedup_ids=True)
    model = torch.nn.Sequential(config.build(layout=LAYOUT, seed=3))
    placed = place(model, config=config, device=torch.device("cpu"))
    batches = [
        batch_of([7, 3, 7], [[1], [], [1, 4]], [4, 4, 4]),
        batch_of([1], [[2]], [3]),
    ]

    for batch in batches:
        expected_BP = PlainTables(LAYOUT, seed=3)(batch)
        torch.testing.assert_close(placed.model(batch), expected_BP, rtol=0, atol=1e-8)

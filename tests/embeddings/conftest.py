"""A small layout with everything that can go wrong in it: shared table, empty bags, awkward names."""

import pytest
import torch

from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout, SparseKey, TableSpec
from recmoe.training.runtime import start_runtime


@pytest.fixture
def layout() -> InputLayout:
    return InputLayout(
        tables=(
            TableSpec("tag", 10, 4, "sum", ("query", "tags")),
            TableSpec("shop.id", 7, 8, "mean", ("shop.id",)),
            TableSpec("type", 5, 4, "sum", ("type",)),
        ),
        sparse=(
            SparseKey("query", "query", "user", "tag", 4),
            SparseKey("tags", "tags", "item", "tag", 4),
            SparseKey("shop.id", "shop.id", "item", "shop.id", 8),
            SparseKey("type", "type", "item", "type", 4),
        ),
        dense=(),
    )


@pytest.fixture
def batch() -> Batch:
    """Two rows; query [3] and [4], tags [] and [5, 9], shop.id [1, 1] and [], type [2] and [0]."""
    return Batch(
        dense_BF=torch.zeros(2, 0),
        lengths_KB=torch.tensor([[1, 1], [0, 2], [2, 0], [1, 1]], dtype=torch.int32),
        values=torch.tensor([3, 4, 5, 9, 1, 1, 2, 0]),
        labels_BL=torch.zeros(2, 0),
    )


@pytest.fixture
def one_process() -> None:
    """torchrec's tables need a process group even in one process; it lives as long as the tests."""
    start_runtime(device="cpu")

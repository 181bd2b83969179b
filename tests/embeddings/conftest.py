"""A small layout with everything that can go wrong in it: shared table, empty bags, awkward names."""

import pytest
import torch

from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout, SequenceSpec, SparseKey, TableSpec
from recmoe.sequence import MeanHistoryConfig
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


@pytest.fixture
def history_layout() -> InputLayout:
    """A history of two columns; table ``item`` is also read by an id, a list and a second history of another side."""
    return InputLayout(
        tables=(
            TableSpec("user", 5, 8, "sum", ("user",), num_linear=4),
            TableSpec("item", 10, 8, "mean", ("history#item", "item", "also", "seen#item"), num_linear=4),
            TableSpec("act.ion", 3, 4, "sum", ("history#act.ion",)),
            TableSpec("type", 3, 8, "sum", ("type",), num_linear=4),
        ),
        sparse=(
            SparseKey("user", "user", "user", "user", 8, num_linear=4),
            SparseKey("history#item", "history", "user", "item", 8, num_linear=4, is_list=True, is_sequence=True),
            SparseKey("item", "item", "item", "item", 8, num_linear=4),
            SparseKey("also", "also", "item", "item", 8, num_linear=4, is_list=True),
            SparseKey("seen#item", "seen", "item", "item", 8, num_linear=4, is_list=True, is_sequence=True),
            SparseKey("history#act.ion", "history", "user", "act.ion", 4, is_list=True, is_sequence=True),
            SparseKey("type", "type", "item", "type", 8, num_linear=4),
        ),
        dense=(),
        sequences=(
            SequenceSpec(
                "history", "user", ("history#item", "history#act.ion"), 5, has_ages=False, encoder=MeanHistoryConfig()
            ),
            SequenceSpec("seen", "item", ("seen#item",), 5, has_ages=False, encoder=MeanHistoryConfig()),
        ),
    )


@pytest.fixture
def history_batch() -> Batch:
    """Two rows; history items [3, 4, 3] and [], item [3] and [7], also [] and [5, 9], seen [] and [8]."""
    return Batch(
        dense_BF=torch.zeros(2, 0),
        lengths_KB=torch.tensor([[1, 1], [3, 0], [1, 1], [0, 2], [0, 1], [3, 0], [1, 1]], dtype=torch.int32),
        values=torch.tensor([1, 1, 3, 4, 3, 3, 7, 5, 9, 8, 1, 0, 2, 2, 0]),
        labels_BL=torch.zeros(2, 0),
    )

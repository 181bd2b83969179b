"""New rows hold the features of the rows that they are taken from, lists and ages with them."""

import torch

from recmoe.features.batch import Batch
from recmoe.features.layout import DenseColumn, InputLayout, SequenceSpec, SparseKey
from recmoe.features.recombined import recombined
from recmoe.sequence import TargetAttentionConfig

LAYOUT = InputLayout(
    tables=(),
    sparse=(
        SparseKey("user", "user", "user", "user", 2),
        SparseKey("tags", "tags", "user", "tag", 2, is_list=True),
        SparseKey("seen#item", "seen", "user", "item", 2, is_list=True, is_sequence=True),
    ),
    dense=(DenseColumn("age", "age", "user", "value"), DenseColumn("user#position", "user", "user", "position", 3, 2)),
    sequences=(SequenceSpec("seen", "user", ("seen#item",), 5, True, TargetAttentionConfig()),),
)
BATCH = Batch(
    dense_BF=torch.tensor([[40.0, 1.5], [20.0, 2.5]]),
    lengths_KB=torch.tensor([[1, 1], [0, 2], [2, 1]], dtype=torch.int32),
    values=torch.tensor([7, 3, 5, 9, 11, 12, 13]),
    labels_BL=torch.zeros(2, 0),
    ages=torch.tensor([0.1, 0.2, 0.3]),
)


def rows(**of_feature: list[int]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(places) for name, places in of_feature.items()}


def test_every_feature_is_that_of_its_own_row() -> None:
    found = recombined(BATCH, LAYOUT, rows(user=[0, 1, 1], tags=[1, 0, 1], seen=[1, 0, 1], age=[1, 1, 0]))

    assert found.num_rows == 3
    assert found.lengths_KB.tolist() == [[1, 1, 1], [2, 0, 2], [1, 2, 1]]
    assert found.values.tolist() == [7, 3, 3, 5, 9, 5, 9, 13, 11, 12, 13]
    assert found.dense_BF.tolist() == [[20.0, 1.5], [20.0, 2.5], [40.0, 2.5]]
    assert found.ages is not None
    torch.testing.assert_close(found.ages, torch.tensor([0.3, 0.1, 0.2, 0.3]))


def test_rows_of_no_features_are_counted() -> None:
    nothing = InputLayout(tables=(), sparse=(), dense=())
    batch = Batch(torch.zeros(2, 0), torch.zeros(0, 2, dtype=torch.int32), torch.zeros(0).long(), torch.zeros(2, 0))

    found = recombined(batch, nothing, rows(elsewhere=[0, 1, 1, 0]))

    assert found.num_rows == 4
    assert found.lengths_KB.shape == (0, 4)
    assert len(found.values) == 0

"""Fixed sizes: rows of a side in buffers, padded with rows that take the padding ids."""

import torch

from recmoe.features.batch import Batch
from recmoe.features.layout import DenseColumn, InputLayout, SequenceSpec, SparseKey
from recmoe.ranking.engine.shapes import MAX_IDS, SideShape, SideShapes, StaticRows
from recmoe.sequence import MeanHistoryConfig

PRICE = DenseColumn("price", "price", "item", "value")
ITEM = SparseKey("item", "item", "item", "item", 4)
TAGS = SparseKey("tags", "tags", "item", "tags", 4, is_list=True)
SEEN = SparseKey("seen", "seen", "item", "item", 4, is_list=True, is_sequence=True)
HISTORY = SequenceSpec("seen", "item", ("seen",), 3, True, MeanHistoryConfig())

IDS = InputLayout(tables=(), sparse=(ITEM,), dense=(PRICE,))
LISTS = InputLayout(tables=(), sparse=(ITEM, TAGS), dense=())
HISTORIES = InputLayout(tables=(), sparse=(ITEM, SEEN), dense=(), sequences=(HISTORY,))


def batch(lengths: list[list[int]], values: list[int], *, num_dense: int = 0, ages: list[float] | None = None) -> Batch:
    num_rows = len(lengths[0])
    return Batch(
        dense_BF=torch.arange(1.0, num_rows * num_dense + 1).view(num_rows, num_dense),
        lengths_KB=torch.tensor(lengths, dtype=torch.int32),
        values=torch.tensor(values),
        labels_BL=torch.empty(num_rows, 0),
        ages=None if ages is None else torch.tensor(ages),
    )


def padded(shape: SideShape, layout: InputLayout, given: Batch) -> Batch:
    """The rows as a model reads them from buffers that held something else before."""
    rows = StaticRows(shape, layout)
    content = torch.full((rows.num_bytes,), 7, dtype=torch.uint8)
    rows.writer(content).write(given)
    return rows.batch(content)


def test_rows_take_the_next_size_and_padding_is_row_zero() -> None:
    given = batch([[1, 1, 1]], [5, 6, 7], num_dense=1)

    shape = SideShapes(IDS, (1, 4, 16)).of(given)
    assert shape == SideShape(4, (4,))
    found = padded(shape, IDS, given)

    assert found.dense_BF.tolist() == [[1], [2], [3], [0]]
    assert found.values.tolist() == [5, 6, 7, 0]
    assert found.lengths_KB.tolist() == [[1, 1, 1, 1]]
    assert (found.num_ids_K, found.ages) == ((4,), None)


def test_padding_ids_of_lists_are_shared_by_padding_rows() -> None:
    given = batch([[1, 1, 1], [2, 0, 1]], [5, 6, 7, 10, 11, 12])
    shapes = SideShapes(LISTS, (1, 4))

    shape = shapes.of(given)
    assert shapes.rungs == (2, 8)
    assert shape == SideShape(8, (8, 64))
    found = padded(shape, LISTS, given)

    # 61 ids among 5 rows.
    assert found.lengths_KB.tolist() == [[1] * 8, [2, 0, 1, 13, 12, 12, 12, 12]]
    assert found.values[:8].tolist() == [5, 6, 7, 0, 0, 0, 0, 0]
    assert found.values[8:].tolist() == [10, 11, 12, *[0] * 61]
    assert found.count_ids() == found.lengths_KB.sum(dim=1).tolist()


def test_padding_of_histories_is_no_longer_than_a_history() -> None:
    given = batch([[1], [0]], [5], ages=[])
    full = batch([[1, 1], [3, 3]], [5, 6, 1, 2, 3, 4, 5, 6], ages=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    shapes = SideShapes(HISTORIES, (1, 2))

    small, large = shapes.of(given), shapes.of(full)
    assert small == SideShape(2, (2, 3))
    assert large == SideShape(4, (4, 6))
    none, all_there = padded(small, HISTORIES, given), padded(large, HISTORIES, full)

    assert none.lengths_KB.tolist() == [[1, 1], [0, 3]]
    assert none.ages is not None
    assert none.ages.tolist() == [0.0, 0.0, 0.0]
    assert all_there.lengths_KB.tolist() == [[1, 1, 1, 1], [3, 3, 0, 0]]
    assert all_there.ages is not None
    assert all_there.ages.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_what_does_not_fit_has_no_size() -> None:
    many_rows = batch([[1] * 5], [0] * 5, num_dense=1)
    many_ids = batch([[1], [MAX_IDS + 1]], [0] * (MAX_IDS + 2))
    long_history = batch([[1], [4]], [0] * 5, ages=[0.0] * 4)

    assert SideShapes(IDS, (4,)).of(many_rows) is None
    assert SideShapes(LISTS, (4,)).of(many_ids) is None
    assert SideShapes(HISTORIES, (1,)).of(long_history) is None
    assert [SideShapes(layout, (1, 64)).most_rows for layout in (IDS, LISTS, HISTORIES)] == [64, 96, 64]


def test_a_size_holds_another_of_as_many_rows_and_no_more_ids() -> None:
    one, other = SideShape(4, (4, 64, 256)), SideShape(4, (4, 128, 128))

    assert one.holds(SideShape(4, (4, 64, 128)))
    assert not one.holds(other)
    assert not one.holds(SideShape(8, (4, 64, 128)))
    assert one.joined(other) == SideShape(4, (4, 128, 256))

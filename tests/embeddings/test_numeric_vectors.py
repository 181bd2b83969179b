import pytest
import torch

from recmoe.embeddings.numeric_vectors import NumericVectors
from recmoe.features.layout import DenseColumn


def column(name: str, *, num_buckets: int, width: int) -> DenseColumn:
    return DenseColumn(f"{name}#position", name, "item", "position", num_buckets, width)


@pytest.mark.parametrize(
    ("position", "encoding"),
    [
        (0.0, [0, 0, 0, 0]),
        (0.5, [0.5, 0, 0, 0]),
        (2.25, [1, 1, 0.25, 0]),
        (4.0, [1, 1, 1, 1]),
    ],
)
def test_vector_is_the_bias_and_a_weight_per_bucket_crossed(position: float, encoding: list[float]) -> None:
    vectors = NumericVectors([column("price", num_buckets=4, width=2)])
    linear = vectors.maps[0]
    assert isinstance(linear, torch.nn.Linear)
    linear.weight.data = torch.tensor([[1.0, 10.0, 100.0, 1000.0], [2.0, 20.0, 200.0, 2000.0]])
    linear.bias.data = torch.tensor([0.5, 0.25])

    (vector_BD,) = vectors(torch.tensor([[position]]))

    first = sum(e * w for e, w in zip(encoding, (1, 10, 100, 1000), strict=True))
    assert vector_BD.tolist() == [[first + 0.5, 2 * first + 0.25]]


def test_each_column_has_its_own_buckets_and_width() -> None:
    vectors = NumericVectors([column("price", num_buckets=4, width=2), column("age", num_buckets=3, width=5)])

    price_BD, age_BD = vectors(torch.tensor([[1.0, 2.0], [3.0, 0.0]]))

    assert (price_BD.shape, age_BD.shape) == ((2, 2), (2, 5))
    other_BD = vectors(torch.tensor([[1.0, 3.0], [3.0, 1.0]]))
    assert torch.equal(other_BD[0], price_BD)
    assert not torch.equal(other_BD[1], age_BD)


def test_no_columns_make_no_vectors() -> None:
    assert NumericVectors([])(torch.zeros(3, 0)) == []

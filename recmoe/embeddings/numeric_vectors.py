"""Numbers as learnt vectors: piecewise-linear encoding followed by a linear map.

Gorishniy et al., NeurIPS 2022, https://arxiv.org/abs/2203.05556, equation 1 and section 3.4.
"""

# B rows, V numeric features, T buckets, D width of the vector

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recmoe.features.layout import DenseColumn


class NumericVectors(nn.Module):
    """One learnt vector per numeric feature, linear between the boundaries of its buckets.

    The encoder sends a position p, the index of the bucket plus the fraction crossed. The
    encoding has one entry per bucket, and the vector is a linear map of it::

        e_t = clip(p - t, 0, 1)          v = sum over t of e_t * W_t + b

    Example: a position of 2.25 among 4 buckets is encoded as [1, 1, 0.25, 0].

    Args:
        columns: the dense columns of form ``position``, in batch order.
    """

    def __init__(self, columns: Sequence[DenseColumn]) -> None:
        super().__init__()
        assert all(column.form == "position" for column in columns)
        self.maps = nn.ModuleList(nn.Linear(column.num_buckets, column.width) for column in columns)

    def forward(self, positions_BV: Tensor) -> list[Tensor]:
        """One [B, D] vector per column, in the order of the columns."""
        vectors = []
        for index, linear in enumerate(self.maps):
            assert isinstance(linear, nn.Linear)
            starts_T = torch.arange(linear.in_features, dtype=positions_BV.dtype, device=positions_BV.device)
            encoding_BT = (positions_BV[:, index, None] - starts_T).clamp(0.0, 1.0)
            vectors.append(F.linear(encoding_BT, linear.weight, linear.bias))
        return vectors

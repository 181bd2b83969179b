"""DistinctIds: a batch whose repeated ids travel and are looked up once."""

# B rows, K sparse keys, N_k distinct ids of key k, J keys with one id in every row

import warnings

import torch
from torch import Tensor

from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout

with warnings.catch_warnings():
    # fbgemm's CPU wheel warns of kernels that it does not have, torch of what it will drop.
    warnings.simplefilter("ignore")
    from torchrec import KeyedJaggedTensor


class DistinctIds:
    """Turns batches into jagged tensors of other numbers of rows per key.

    A key with one id in every row keeps its distinct ids alone, and each row's place among them; torchrec sends
    and looks up the former and spreads the vectors by the latter. Lists stay as they are::

              user           tags               user: rows [3], [7]              places [1, 0, 1]
        row 0  7             [1]                tags: rows [1], [], [1, 4]       places [0, 1, 2]
        row 1  3             []
        row 2  7             [1, 4]
    """

    def __init__(self, layout: InputLayout) -> None:
        self._keys = [key.name for key in layout.sparse]
        rows = {table.name: table.num_rows for table in layout.tables}
        self._num_rows_K = [rows[key.table] for key in layout.sparse]

    def __call__(self, batch: Batch) -> KeyedJaggedTensor:
        lengths_KB = batch.lengths_KB
        num_keys, num_rows = lengths_KB.shape
        is_single_K: list[bool] = (lengths_KB == 1).all(dim=1).tolist()
        ids_K = torch.split(batch.values, lengths_KB.sum(dim=1).tolist())
        singles = [key for key in range(num_keys) if is_single_K[key]]
        distinct, place_KB = self._distinct(ids_K, singles, num_rows)
        values = [distinct.get(key, ids) for key, ids in enumerate(ids_K)]
        ones = lengths_KB.new_ones(num_rows)
        lengths = [ones[: len(distinct[key])] if key in distinct else lengths_KB[key] for key in range(num_keys)]
        return KeyedJaggedTensor(
            keys=self._keys,
            values=torch.cat(values),
            lengths=torch.cat(lengths),
            stride_per_key_per_rank=[[len(of_key)] for of_key in lengths],
            inverse_indices=(self._keys, place_KB),
        )

    def _distinct(
        self, ids_K: tuple[Tensor, ...], singles: list[int], num_rows: int
    ) -> tuple[dict[int, Tensor], Tensor]:
        """The distinct ids of some keys, in rising order, and every row's place among its key's."""
        device = ids_K[0].device
        place_KB = torch.arange(num_rows, device=device).repeat(len(ids_K), 1)
        if not singles or num_rows == 0:
            return {}, place_KB
        # One sort for all keys: each has a range of numbers to itself.
        sizes_J = torch.tensor([self._num_rows_K[key] for key in singles], device=device)
        starts_J = sizes_J.cumsum(0) - sizes_J
        shifted = torch.cat([ids_K[key] for key in singles]) + starts_J.repeat_interleave(num_rows)
        numbers, place = torch.unique(shifted, return_inverse=True)
        first_J = torch.searchsorted(numbers, starts_J)
        place_KB[singles] = place.view(len(singles), num_rows) - first_J[:, None]
        owner = torch.searchsorted(starts_J, numbers, right=True) - 1
        counts: list[int] = torch.bincount(owner, minlength=len(singles)).tolist()
        ids = torch.split(numbers - starts_J[owner], counts)
        return dict(zip(singles, ids, strict=True)), place_KB

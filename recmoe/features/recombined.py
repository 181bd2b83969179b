"""recombined(): rows that are put together of the features of other rows; selected(): some rows as they are."""

# B rows, N rows made of them, K sparse keys

from collections.abc import Mapping

import torch
from torch import Tensor

from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout


def recombined(batch: Batch, layout: InputLayout, rows: Mapping[str, Tensor]) -> Batch:
    """N rows, each of whose features is that of some row of a batch; without labels and groups.

    Example: two rows, of which the new ones have the user of one and the tags of the other::

               user   tags                                                  user   tags
        row 0  [7]    []         rows = {user: [0, 1], tags: [1, 0]}        [7]    [5, 9]
        row 1  [3]    [5, 9]                                                [3]    []

    Args:
        layout: of the batch.
        rows: by feature, int64 rows_N.
    """
    num_rows = len(next(iter(rows.values()), ()))
    starts_KB = batch.lengths_KB.to(torch.int64).view(-1).cumsum(0).view(batch.lengths_KB.shape) - batch.lengths_KB
    lengths, places = [], []
    for key, lengths_B, starts_B in zip(layout.sparse, batch.lengths_KB, starts_KB, strict=True):
        rows_N = rows[key.feature]
        lengths.append(lengths_B[rows_N])
        places.append(_places(starts_B[rows_N], lengths[-1]))
    dense = [batch.dense_BF[rows[column.feature], place] for place, column in enumerate(layout.dense)]
    return Batch(
        dense_BF=torch.stack(dense, dim=1) if dense else batch.dense_BF.new_empty(num_rows, 0),
        lengths_KB=torch.stack(lengths) if lengths else batch.lengths_KB.new_empty(0, num_rows),
        values=batch.values[torch.cat(places)] if places else batch.values,
        labels_BL=batch.labels_BL.new_empty(num_rows, 0),
        ages=_ages(batch, layout, rows),
    )


def selected(batch: Batch, layout: InputLayout, rows_N: Tensor) -> Batch:
    """N rows of a batch, in any order and as often as they are named; without labels and groups."""
    features = [key.feature for key in layout.sparse] + [column.feature for column in layout.dense]
    # Of a side without features there are rows all the same.
    return recombined(batch, layout, dict.fromkeys(["", *features], rows_N))


def _ages(batch: Batch, layout: InputLayout, rows: Mapping[str, Tensor]) -> Tensor | None:
    if batch.ages is None:
        return None
    sequences = batch.sequences(layout)
    pieces = []
    for spec in layout.sequences:
        ages_N, lengths_B = sequences[spec.name].ages_N, sequences[spec.name].lengths_B.to(torch.int64)
        if ages_N is not None:
            rows_N = rows[spec.name]
            pieces.append(ages_N[_places((lengths_B.cumsum(0) - lengths_B)[rows_N], lengths_B[rows_N])])
    return torch.cat(pieces)


def _places(starts_N: Tensor, lengths_N: Tensor) -> Tensor:
    """Where the values of rows stand that begin somewhere and have some length."""
    before_N = lengths_N.to(torch.int64).cumsum(0) - lengths_N
    shifts_n = torch.repeat_interleave(starts_N - before_N, lengths_N)
    return shifts_n + torch.arange(len(shifts_n), device=shifts_n.device)

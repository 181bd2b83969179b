"""row_ids(): of each row of a batch, the row of an id in its table."""

# B rows, K sparse keys

import torch
from torch import Tensor

from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout, SparseKey


def id_key(layout: InputLayout, feature: str) -> SparseKey | None:
    """The key of a feature that has one id a row; None where some sides do not hold it."""
    keys = [key for key in layout.sparse if key.feature == feature and not key.is_list and not key.is_sequence]
    assert len(keys) <= 1, f"{feature} has several ids a row"
    return keys[0] if keys else None


def row_ids(batch: Batch, layout: InputLayout, feature: str) -> Tensor | None:
    """int64 [B]: 0 where the id is unknown or missing; None where the layout does not hold the feature.

    Args:
        layout: of this batch.
    """
    key = id_key(layout, feature)
    if key is None:
        return None
    return batch.values.index_select(0, id_places(batch, layout, key))


def id_places(batch: Batch, layout: InputLayout, key: SparseKey) -> Tensor:
    """int64 [B]: where the ids of a key that has one a row stand in the values of a batch.

    Args:
        layout: of this batch.
    """
    # Keys before it may have any number of ids, which are added up where they are.
    first = batch.lengths_KB[: layout.sparse.index(key)].sum()
    return first + torch.arange(batch.num_rows, device=batch.values.device)

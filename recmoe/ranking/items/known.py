"""know_items(): what the items of a store give in a model's first products, as many as there is room for."""

# N items, H known candidates, M others, C = H + M, T tasks

import logging
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recmoe.errors import ServingError
from recmoe.export.replay import relative_difference
from recmoe.features.batch import Batch
from recmoe.features.blocks import EncodedRows
from recmoe.model import MultiTaskRanker
from recmoe.model.known_items import KnownCandidates, KnownItems
from recmoe.moe.known import KnownRows
from recmoe.ranking.engine import Engine
from recmoe.ranking.items.candidate_rows import EncodedCandidates
from recmoe.ranking.items.candidates import StoredItems
from recmoe.ranking.items.store import Places

_logger = logging.getLogger(__name__)

_TRIED = 16
"""Items by which the bytes of one are found."""
_PROVED = 256

Predict = Callable[[Batch, Tensor, KnownCandidates | None], NDArray[np.float32]]
"""predictions_CT from the rows of candidates of one request, the request of each, and which are known."""


def keep_products(
    engine: Engine, items: StoredItems, shared: Batch, *, max_bytes: int, tolerance: float
) -> KnownItems | None:
    """What the first items of a store give, compared with what it is in a request; None where none is kept.

    Args:
        shared: one row of user and context, any.
        max_bytes: see ``know_items``.
        tolerance: largest difference of a prediction.

    Raises:
        ServingError: products that are kept change predictions.
    """
    if max_bytes and not engine.keeps_products:
        _logger.warning(
            "this model is served without products of items that are kept: they are for the CPU, and it is ranked on "
            "%s or in recorded passes",
            engine.device,
        )
        return None
    with engine.computing():
        known = know_items(engine.model, items, shared, max_bytes=max_bytes)
    if known is not None:
        check_known(items, known, partial(engine.predict, shared), tolerance=tolerance)
    return known


def know_items(model: MultiTaskRanker, items: StoredItems, shared: Batch, *, max_bytes: int) -> KnownItems | None:
    """The first items of the store, as many as there is room for; None, and a line in the log, where none can be known.

    Args:
        shared: one row of user and context, any.
        max_bytes: of what is known, in this process.
    """
    if not max_bytes:
        return None
    reason = None
    if items.lacking:
        reason = f"requests give {', '.join(items.lacking)}, which the store does not hold"
    elif not model.knows_items:
        reason = "its candidates read a history of the user"
    elif not items.read_first(_TRIED):
        reason = "the store was written by an earlier version, which kept no order of items; build it again"
    if reason is None:
        tried = model.know_items(shared, _batches(items), num_items=min(_TRIED, items.store.num_rows))
        if _is_enough(model, tried, items, shared):
            bytes_each = tried.num_bytes // tried.products.num_items
            # At most so many: what the rows themselves take is not known before they are there.
            items.read_first(max_bytes // bytes_each + _PROVED)
            num_items = items.most_known(bytes_each=bytes_each, max_bytes=max_bytes)
            if not num_items:
                _logger.warning("%d bytes are too few for the products of one item; none is kept", max_bytes)
                return None
            return model.know_items(shared, _batches(items), num_items=num_items)
        reason = "it reads the columns of items otherwise than in products with the whole input"
    _logger.warning("this model is served without products of items that are kept: %s", reason)
    return None


def _is_enough(model: MultiTaskRanker, tried: KnownItems, items: StoredItems, shared: Batch) -> bool:
    """Whether a model predicts known items without looking up what they are made of."""
    none, num_items = np.zeros(0, np.int64), tried.products.num_items
    own = EncodedCandidates(_rows(items, none), np.arange(num_items))
    request_C = torch.zeros(num_items, dtype=torch.int64)
    model.predict_sided(shared, own.rows.batch, request_C, known_candidates(tried, [own]))
    return not tried.products.num_own_parts


def check_known(items: StoredItems, known: KnownItems, predict: Predict, *, tolerance: float) -> None:
    """ServingError where a sample of candidates, known and not, is predicted otherwise than by computing it all."""
    assert items.at_hand is not None
    num_items, num_rows = known.products.num_items, items.at_hand.num_rows
    known_H = np.unique(np.linspace(0, num_items - 1, min(num_items, _PROVED)).astype(np.int64))
    other_M = np.arange(num_items, min(num_rows, num_items + _PROVED))
    request_C = torch.zeros(len(known_H) + len(other_M), dtype=torch.int64)
    expected_CT = predict(items.batch(np.concatenate([known_H, other_M])), request_C, None)
    own = EncodedCandidates(_rows(items, other_M), known_H)
    found_CT = predict(own.rows.batch, request_C, known_candidates(known, [own]))
    largest = float(relative_difference(found_CT, expected_CT).max())
    # Not "beyond": a comparison with NaN is false, and NaN must not pass.
    if not largest <= tolerance:
        raise ServingError(
            f"products of items that are kept change predictions by {largest:.1e}, which may be {tolerance:g}; "
            "serve without them: items_known_bytes 0"
        )


def known_candidates(known: KnownItems, requests: Sequence[EncodedCandidates]) -> KnownCandidates:
    """Which candidates are known, of several requests one after the other."""
    is_known = [np.arange(one.num_rows) < len(one.known_H) for one in requests]
    is_known_C = np.concatenate(is_known)
    rows = KnownRows(
        items_H=torch.from_numpy(np.concatenate([one.known_H for one in requests])),
        rows_H=torch.from_numpy(np.flatnonzero(is_known_C)),
        rows_M=torch.from_numpy(np.flatnonzero(~is_known_C)),
    )
    return KnownCandidates(known, rows)


def _rows(items: StoredItems, places: Places) -> EncodedRows:
    assert items.at_hand is not None
    return items.at_hand.rows(places)


def _batches(items: StoredItems) -> Callable[[Tensor], Batch]:
    return lambda places_N: items.batch(places_N.numpy())

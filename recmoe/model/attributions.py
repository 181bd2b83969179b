"""attributions(): how far each feature of a row moves its predictions.

Shapley values: Lundberg & Lee, NeurIPS 2017, https://arxiv.org/abs/1705.07874, equation 8. Orders in pairs with their
reverses: Mitchell et al., JMLR 2022, https://jmlr.org/papers/v23/21-0439.html.
"""

# R requests, C candidates, F features, S sets of features, T tasks, Z logits

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from recmoe.features.batch import Batch
from recmoe.features.blocks import concatenated
from recmoe.features.layout import InputLayout
from recmoe.features.recombined import recombined
from recmoe.model.inputs import feature_widths
from recmoe.model.ranker import MultiTaskRanker
from recmoe.tasks.funnel import TaskSet

NUM_PAIRS = 2
"""Orders of the features, each of which is taken backwards too."""
CHUNK_ROWS = 2048
"""Rows per forward pass."""
LEAST_PROBABILITY = 1e-12
"""Log-odds of less, and of more than 1 minus that, would be rounding."""


class Attributions(NamedTuple):
    """How features move the predictions of C rows; log-odds where a prediction is a probability. All float64.

    The attributions of a row add up, whatever the model is::

        predicted[c, t]  =  base[c, t]  +  Σ_f  moves[c, f, t]
    """

    features: tuple[str, ...]
    predicted_CT: Tensor
    base_CT: Tensor
    """With all features left out; equal in all rows, but for rounding."""
    moves_CFT: Tensor


class SidedRows(NamedTuple):
    """Rows whose user and context are held once per request."""

    shared: Batch
    """R rows."""
    own: Batch
    """C rows."""
    request_C: Tensor
    """int64, the request of each candidate."""


def attributions(
    ranker: MultiTaskRanker,
    rows: SidedRows,
    missing: SidedRows,
    *,
    orders: Sequence[Sequence[int]] | None = None,
    check: Callable[[], None] = lambda: None,
) -> Attributions:
    """Shapley values of the features, against rows in which they are left out.

    v(A) is what the model predicts of a row of which it is given the features A alone; the others are as in a row of
    nothing but nulls: ids and buckets are row 0 of their tables, which stands for "unknown or missing", lists and
    histories are empty, numbers are what the encoder takes for null. Features are given one by one, in some order::

        moves[f]  =  mean over orders of  v(those before f, and f) - v(those before f)

    That adds up to v(all) - v(none) for any model, and a feature that is missing has 0. Where no more than two features
    act together the mean over an order and its reverse is that over all F! orders; ``NUM_PAIRS`` of them come close.

    Args:
        rows: to be explained.
        missing: one row in which every column is null.
        orders: permutations of the features; by default pairs that depend on their number alone.
        check: is called before each forward pass; what it raises ends the computation.
    """
    layout = ranker.input_layer.layout
    features = tuple(feature_widths(layout))
    sets_SF, steps_N3 = _steps(default_orders(len(features)) if orders is None else orders)
    gained_N, before_N, after_N = steps_N3.unbind(dim=1)
    values_SCT = _values(ranker, rows, missing, dict(zip(features, sets_SF.t(), strict=True)), check)
    differences_NCT = values_SCT[after_N] - values_SCT[before_N]
    num_orders = len(steps_N3) / len(features)
    moves_FCT = values_SCT.new_zeros(len(features), *values_SCT.shape[1:])
    moves_FCT.index_add_(0, gained_N, differences_NCT).div_(num_orders)
    num_given_S = sets_SF.sum(dim=1)
    return Attributions(
        features, values_SCT[num_given_S.argmax()], values_SCT[num_given_S.argmin()], moves_FCT.transpose(0, 1)
    )


def default_orders(num_features: int) -> list[list[int]]:
    """``NUM_PAIRS`` orders and their reverses; each begins elsewhere in an order that is drawn once and for all."""
    drawn = torch.randperm(num_features, generator=torch.Generator().manual_seed(num_features)).tolist()
    starts = [pair * num_features // NUM_PAIRS for pair in range(NUM_PAIRS)]
    orders = [[*drawn[start:], *drawn[:start]] for start in starts]
    return [one for order in orders for one in (order, order[::-1])]


def explained_predictions(tasks: TaskSet, logits_BZ: Tensor) -> Tensor:
    """float64 [B, T]: predictions as attributions count them, log-odds where they are probabilities."""
    predictions_BT = tasks.predict(logits_BZ.double())
    columns = [
        torch.logit(predictions_B, eps=LEAST_PROBABILITY) if tasks.kinds[name] == "binary" else predictions_B
        for name, predictions_B in zip(tasks.names, predictions_BT.unbind(dim=1), strict=True)
    ]
    return torch.stack(columns, dim=1)


def _steps(orders: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """The sets of features that are met on the way, each once, and the steps between them.

    Returns:
        sets_SF: bool, which features are given.
        steps_N3: int64; the feature that is added, the set before and the set after.
    """
    places: dict[tuple[bool, ...], int] = {}
    steps = []
    for order in orders:
        given = [False] * len(order)
        before = places.setdefault(tuple(given), len(places))
        for feature in order:
            given[feature] = True
            after = places.setdefault(tuple(given), len(places))
            steps.append((feature, before, after))
            before = after
    return torch.tensor(list(places), dtype=torch.bool), torch.tensor(steps, dtype=torch.int64)


def _values(
    ranker: MultiTaskRanker,
    rows: SidedRows,
    missing: SidedRows,
    is_given: Mapping[str, Tensor],
    check: Callable[[], None],
) -> Tensor:
    """v of every set of features: values_SCT.

    Args:
        is_given: by feature, bool [S].
    """
    parts = ranker.input_layer.parts
    shared_layout, own_layout = parts["shared"].layout, parts["own"].layout
    # The row of nulls stands behind the others.
    shared = concatenated([rows.shared, missing.shared], shared_layout)
    own = concatenated([rows.own, missing.own], own_layout)
    num_requests, num_candidates = rows.shared.num_rows, rows.own.num_rows
    num_sets = len(next(iter(is_given.values())))
    sets_at_once = max(1, CHUNK_ROWS // num_candidates)
    values = []
    for first in range(0, num_sets, sets_at_once):
        check()
        some = {name: given_S[first : first + sets_at_once] for name, given_S in is_given.items()}
        size = min(sets_at_once, num_sets - first)
        request_sC = torch.arange(size)[:, None] * num_requests + rows.request_C
        output = ranker.forward_sided(
            _left_out(shared, shared_layout, some, num_requests),
            _left_out(own, own_layout, some, num_candidates),
            request_sC.view(-1),
        )
        values.append(explained_predictions(ranker.tasks, output.logits_BZ).view(size, num_candidates, -1))
    return torch.cat(values)


def _left_out(batch: Batch, layout: InputLayout, is_given: Mapping[str, Tensor], num_rows: int) -> Batch:
    """For each of S sets, B rows with its features; the others are those of the last row of the batch."""
    rows_B = torch.arange(num_rows)
    rows = {name: torch.where(given_S[:, None], rows_B, num_rows).view(-1) for name, given_S in is_given.items()}
    return recombined(batch, layout, rows)

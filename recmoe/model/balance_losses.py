"""balance_losses(): what the balance terms of a model say of a batch."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout
from recmoe.model.row_ids import row_ids
from recmoe.moe.balance import BalanceTerm
from recmoe.moe.gate_use import GateUse

BalanceTerms = Mapping[str, tuple[float, BalanceTerm]]
"""By name, a factor and the term that it is of; a term with factor 0 acts by other means."""


def balance_losses(
    terms: BalanceTerms,
    uses: Sequence[GateUse],
    batch: Batch,
    *,
    layout: InputLayout,
    features: Collection[str],
    device: torch.device,
) -> list[Tensor]:
    """In the order of their names; 0 for a model without gates, so that one config serves every architecture.

    Args:
        uses: of the gates, level by level.
        layout: of the batch.
        features: whose ids the terms read.
    """
    if not uses:
        return [torch.zeros((), device=device) for _ in terms]
    if features:
        found = {name: row_ids(batch, layout, name) for name in features}
        ids = {name: ids_B for name, ids_B in found.items() if ids_B is not None}
        uses = [replace(use, ids=ids) for use in uses]
    return [term(uses).float().to(device) for _, term in terms.values()]


def with_balance(loss: Tensor, terms: BalanceTerms, terms_N: Sequence[Tensor]) -> Tensor:
    """A loss with the terms times their factors added."""
    for term, (factor, _) in zip(terms_N, terms.values(), strict=True):
        if factor > 0:
            loss = loss + factor * term
    return loss

"""CandidateRows: where the columns of a request's candidates are; EncodedCandidates: what a model reads of them."""

# C candidates of a request, H of them whose products are known, S stored, K some of them, T tasks

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from recmoe.features.batch import Batch
from recmoe.features.blocks import BlockRows, EncodedRows, concatenated
from recmoe.features.layout import InputLayout
from recmoe.features.recombined import selected
from recmoe.ranking.items.store import FoundRows, Places


@dataclass(frozen=True)
class CandidateRows:
    """C candidates, in this order: those whose products are known, those whose row is stored, and the others."""

    order_C: Places
    """Where each of them stands in the request."""
    found: FoundRows
    """What the store has of them."""
    known_H: Places
    """Rows at hand."""
    stored_S: Places
    """Rows of ``found``."""
    rest: BlockRows
    """Of the stored candidates, the columns of features that the store does not hold."""
    given: BlockRows | None
    """All columns of the others; None where there are none."""


@dataclass(frozen=True)
class EncodedCandidates:
    """C candidates as the model reads them."""

    rows: EncodedRows
    """Those whose products are not known; what the model does not know of all."""
    known_H: Places = field(default_factory=lambda: np.zeros(0, np.int64))
    """Rows at hand of the others, which come first."""
    order_C: Places | None = None
    """Where each of them stands in the request; None where they stand as they came."""

    @property
    def num_rows(self) -> int:
        return len(self.known_H) + self.rows.batch.num_rows

    def in_request_order(self, found_CT: NDArray[np.float64]) -> NDArray[np.float64]:
        """What was found of each candidate, as the request has them."""
        if self.order_C is None:
            return found_CT
        ordered_CT = np.empty_like(found_CT)
        ordered_CT[self.order_C] = found_CT
        return ordered_CT

    def batch(self, places_K: Places, layout: InputLayout, known: Callable[[Places], Batch] | None) -> Batch:
        """The rows of some candidates, by their places in the request.

        Args:
            layout: of ``rows``.
            known: makes the rows of known candidates.
        """
        at_K = places_K if self.order_C is None else np.argsort(self.order_C)[places_K]
        num_known = len(self.known_H)
        parts = [self.rows.batch]
        if num_known:
            assert known is not None
            is_known_K = at_K < num_known
            # Of the known ones only these few are unpacked.
            parts.insert(0, known(self.known_H[at_K[is_known_K]]))
            at_K = np.where(is_known_K, np.cumsum(is_known_K) - 1, at_K - num_known + np.count_nonzero(is_known_K))
        return selected(concatenated(parts, layout), layout, torch.from_numpy(at_K))

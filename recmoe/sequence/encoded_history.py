"""EncodedHistory: what candidates attend to; HistoryEncoder: what every kind of encoder offers."""

# R requests, L entries of a history, C candidates, D width of an entry, Q width of a query, H width of the result

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class EncodedHistory(NamedTuple):
    """The histories of R requests, as far as they do not depend on a candidate."""

    parts: tuple[Tensor, ...]
    """[R, L, …] each: what ``attend`` of the encoder reads."""
    mask_RL: Tensor
    """Bool: which entries there are."""

    def of_candidates(self, request_C: Tensor | None) -> "EncodedHistory":
        """The same with a row per candidate; with one row where there is one request, which broadcasts."""
        if request_C is None or self.mask_RL.shape[0] == 1:
            return self
        return EncodedHistory(
            tuple(part.index_select(0, request_C) for part in self.parts), self.mask_RL.index_select(0, request_C)
        )


class HistoryEncoder(Protocol):
    """A history becomes a vector, in two halves, so that a request of many candidates encodes its history once.

    Example: two requests, the first with two candidates, the second with one::

        encoded = encoder.encode(history_RLD, mask_RL)            R = 2
        vector_CH = encoder.attend(encoded, query_CQ, request_C)  C = 3, request_C = [0, 0, 1]

    The vector of an empty history is zero. What stands where the mask is false never matters.
    """

    out_features: int
    """H."""
    reads_candidate: bool
    """Whether the vector depends on the candidate; where not, ``attend`` takes no query."""

    def encode(self, history_RLD: Tensor, mask_RL: Tensor, ages_RL: Tensor | None = None) -> EncodedHistory:
        """What is computed once per request.

        Args:
            history_RLD: entries in the order of time, the newest last, without gaps; room for one at least.
            mask_RL: bool, which entries there are.
            ages_RL: how long before the request each was, in the unit of the log; None where that is not known.
        """
        ...

    def attend(self, encoded: EncodedHistory, query_CQ: Tensor | None, request_C: Tensor | None) -> Tensor:
        """vector_CH, in float32.

        Args:
            query_CQ: the candidates; None where they are not read.
            request_C: int64, the request of each candidate; without it, candidate c is of request c.
        """
        ...


def without_padding(history_RLD: Tensor, mask_RL: Tensor) -> Tensor:
    """The history with zeros where nothing is, whatever stood there."""
    return history_RLD.masked_fill(~mask_RL[..., None], 0.0)


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Shares in float32 over the last axis, zero where the mask is false; all zero where nothing is."""
    # A softmax over minus infinities alone is NaN, and so is its gradient.
    lowest = torch.finfo(torch.float32).min
    return torch.softmax(scores.float().masked_fill(~mask, lowest), dim=-1).masked_fill(~mask, 0.0)

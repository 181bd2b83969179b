"""Moments: what predictions add up to, and how far their mean can be trusted; small enough to be sent around."""

import math
from dataclasses import astuple, dataclass
from typing import Self

from pydantic import BaseModel


@dataclass(frozen=True)
class Moments:
    """Sums over requests of one task; request i has n_i candidates, whose predictions sum to s_i."""

    num_requests: int = 0
    num_candidates: int = 0
    """Σ n_i."""
    total: float = 0.0
    """Σ s_i."""
    sum_nn: float = 0.0
    sum_ns: float = 0.0
    sum_ss: float = 0.0

    def plus(self, other: Self) -> "Moments":
        """Those of both together."""
        return Moments(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    @property
    def mean(self) -> float:
        """The mean prediction m over all candidates; NaN without any."""
        return self.total / self.num_candidates if self.num_candidates else math.nan

    @property
    def standard_error(self) -> float:
        """Of the mean: sqrt(Σ (s_i - m n_i)² · r / (r - 1)) / Σ n_i, with r requests.

        Candidates of a request have their user in common: requests are independent, candidates are not. The mean is
        therefore a ratio of two sums over requests (Cochran, Sampling Techniques, 3rd edition, section 6.4).
        """
        if self.num_requests < 2 or not self.num_candidates:
            return math.inf
        spread = self.sum_ss - 2 * self.mean * self.sum_ns + self.mean**2 * self.sum_nn
        return math.sqrt(max(0.0, spread) * self.num_requests / (self.num_requests - 1)) / self.num_candidates


class ServedPredictions(BaseModel):
    """What the champion has predicted since the last time."""

    name: str
    version: str | None
    digest: str
    training: dict[str, float]
    """Mean predictions in training, by task."""
    moments: dict[str, Moments]
    """By task."""

"""Tally: what became of the requests of one load, and its figures."""

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Tally:
    """Every request that was sent or was to be sent, by its outcome. Times are in seconds."""

    ok_s: "array[float]" = field(default_factory=lambda: array("d"))
    """From when each ranked request was due to the end of its answer."""
    refused_s: "array[float]" = field(default_factory=lambda: array("d"))
    """The same of those that were answered 429."""
    other: Counter[str] = field(default_factory=Counter)
    """Those with another outcome, by the status or by what happened."""
    lag_s: "array[float]" = field(default_factory=lambda: array("d"))
    """How late the generator was with each request that it sent by schedule."""
    num_held: int = 0
    """Requests that were due when no more connections could be opened; their wait is in their latency."""
    last_s: float = 0.0
    """When the last answer came, on the monotonic clock."""
    bodies: dict[int, bytes] = field(default_factory=dict)
    """The last ranking by payload."""

    @property
    def num_requests(self) -> int:
        return len(self.ok_s) + len(self.refused_s) + self.other.total()

    @classmethod
    def total(cls, parts: Iterable["Tally"]) -> "Tally":
        """The tally of several processes."""
        whole = cls()
        for part in parts:
            whole.ok_s += part.ok_s
            whole.refused_s += part.refused_s
            whole.other += part.other
            whole.lag_s += part.lag_s
            whole.num_held += part.num_held
            whole.last_s = max(whole.last_s, part.last_s)
            whole.bodies |= part.bodies
        return whole


@dataclass(frozen=True)
class Times:
    """Percentiles of a number of times, in milliseconds; None where there are none."""

    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Times":
        if not len(seconds):
            return cls(None, None, None, None)
        values_ms = np.asarray(seconds) * 1000
        p50, p90, p99, longest = np.percentile(values_ms, (50, 90, 99, 100)).tolist()
        return cls(p50, p90, p99, longest)

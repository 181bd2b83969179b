"""ServiceTimes: how long work of each kind takes."""

import math
import time
from dataclasses import dataclass

_NEWEST_SHARE = 0.1
"""Weight of the newest in the moving averages."""
_DEVIATIONS = 2
"""Mean deviations beyond its mean that slow work takes; about one in ten takes longer."""


@dataclass
class _Times:
    mean_s: float
    deviation_s: float = 0.0
    """Mean of how far one is from the mean before it."""
    is_guess: bool = False
    known_s: float = -math.inf
    """When it was last measured or guessed, or began to be measured anew."""


class ServiceTimes:
    """Moving averages by kind: what work of one kind has taken says nothing of another."""

    def __init__(self) -> None:
        self._of: dict[str, _Times] = {}

    def expected_s(self, kind: str) -> float:
        """Seconds that work of a kind takes; 0 while nothing is known of it."""
        return self._of[kind].mean_s if kind in self._of else 0.0

    def slow_s(self, kind: str) -> float:
        """Seconds that work of a kind takes at most, but for little of it."""
        return self.expected_s(kind) + (_DEVIATIONS * self._of[kind].deviation_s if kind in self._of else 0.0)

    def guess(self, kind: str, time_s: float) -> None:
        """Expect this until work of the kind is measured; what was known of it is forgotten."""
        self._of[kind] = _Times(time_s, is_guess=True, known_s=time.perf_counter())

    def measured(self, kind: str, took_s: float, *, anew: bool = False) -> None:
        """Work of a kind took so long.

        Args:
            anew: whether what was measured before is too old to count.
        """
        times = self._of.get(kind)
        if times is None or times.is_guess or anew:
            times = self._of[kind] = _Times(took_s)
        differs_s = took_s - times.mean_s
        times.mean_s += _NEWEST_SHARE * differs_s
        times.deviation_s += _NEWEST_SHARE * (abs(differs_s) - times.deviation_s)
        times.known_s = time.perf_counter()

    def begins_anew(self, kind: str, *, after_s: float) -> bool:
        """Whether work of a kind is to be measured anew, as it was not for so long; True for one of those who ask."""
        times = self._of.get(kind)
        now_s = time.perf_counter()
        if times is None or now_s - times.known_s < after_s:
            return False
        times.known_s = now_s
        return True

"""ServiceTimes: how long work of each kind takes."""

import math
import time

_NEWEST_SHARE = 0.1
"""Weight of the newest in the moving average."""


class ServiceTimes:
    """A moving average by kind: what work of one kind has taken says nothing of another."""

    def __init__(self) -> None:
        self._mean_s: dict[str, float] = {}
        self._measured_s: dict[str, float] = {}
        """When work of a kind was last measured, or was begun to be; none where the mean is a guess."""

    def expected_s(self, kind: str) -> float:
        """Seconds that work of a kind takes; 0 while nothing is known of it."""
        return self._mean_s.get(kind, 0.0)

    def guess(self, kind: str, time_s: float) -> None:
        """Expect this until work of the kind is measured; what was known of it is forgotten."""
        self._mean_s[kind] = time_s
        self._measured_s.pop(kind, None)

    def measured(self, kind: str, took_s: float, *, anew: bool = False) -> None:
        """Work of a kind took so long.

        Args:
            anew: whether what was measured before is too old to count.
        """
        if anew or kind not in self._measured_s:
            self._mean_s[kind] = took_s
        else:
            self._mean_s[kind] += _NEWEST_SHARE * (took_s - self._mean_s[kind])
        self._measured_s[kind] = time.perf_counter()

    def begin_anew(self, kind: str, *, after_s: float) -> bool:
        """Whether work of a kind is to be measured again, as it was not for so long; True for one who asks, not all."""
        now_s = time.perf_counter()
        if now_s - self._measured_s.get(kind, -math.inf) < after_s:
            return False
        self._measured_s[kind] = now_s
        return True

"""Clock: milliseconds per stage of one ranking."""

import time
from collections.abc import Mapping


class Clock:
    """Runs from when it is made; a stage that comes again goes on where it ended."""

    def __init__(self) -> None:
        self.start_s = self._last_s = time.perf_counter()
        self._stages_s: dict[str, float] = {}

    @property
    def stages_s(self) -> Mapping[str, float]:
        """Seconds of each stage, in their order."""
        return self._stages_s

    def stage(self, name: str) -> None:
        """The stage that ends now."""
        now_s = time.perf_counter()
        self._stages_s[name] = self._stages_s.get(name, 0.0) + now_s - self._last_s
        self._last_s = now_s

    def timing_ms(self) -> dict[str, float]:
        """Milliseconds of each stage, and in ``total``."""
        times_s = {**self._stages_s, "total": self._last_s - self.start_s}
        return {name: round(time_s * 1000, 3) for name, time_s in times_s.items()}

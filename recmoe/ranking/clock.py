"""Clock: milliseconds per stage of one call."""

import time


class Clock:
    """Starts when it is made."""

    def __init__(self) -> None:
        self._start_s = self._last_s = time.perf_counter()
        self._stages_ms: dict[str, float] = {}

    def stage(self, name: str) -> None:
        """The stage that ends now."""
        now_s = time.perf_counter()
        self._stages_ms[name] = (now_s - self._last_s) * 1000
        self._last_s = now_s

    def timing_ms(self) -> dict[str, float]:
        """Milliseconds by stage, and in total."""
        times_ms = {**self._stages_ms, "total": (self._last_s - self._start_s) * 1000}
        return {name: round(time_ms, 3) for name, time_ms in times_ms.items()}

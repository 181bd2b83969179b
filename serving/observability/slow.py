"""SlowRequests: a log line for what took long, with where the time went."""

import logging
import time

from serving.observability.call import Call

_logger = logging.getLogger(__name__)

_PAUSE_S = 1.0
"""Between two lines: a server that is overloaded, where all are slow, must not be slowed down by its log."""


class SlowRequests:
    """Logs requests for a ranking beyond a limit, one a second at most; runs on the thread of the loop.

    Args:
        slower_than_ms: from arrival to answer; None for no log.
    """

    def __init__(self, slower_than_ms: float | None) -> None:
        self._slower_than_ms = slower_than_ms
        self._last_s = -_PAUSE_S
        self._num_passed_over = 0

    def note(self, call: Call) -> None:
        """A request has been answered, or its client has gone."""
        if self._slower_than_ms is None or call.total_ms <= self._slower_than_ms:
            return
        if time.monotonic() - self._last_s < _PAUSE_S:
            self._num_passed_over += 1
            return
        stages_ms = {stage.name: round((stage.end_s - stage.start_s) * 1000, 1) for stage in call.stages}
        fields = {
            "total_ms": round(call.total_ms, 1),
            "stages_ms": stages_ms,
            "status": call.status,
            "protocol": call.protocol,
            "candidates": call.num_candidates,
            "model": call.model.name if call.model is not None else None,
            "version": call.model.version if call.model is not None else None,
            "passed_over": self._num_passed_over,
        }
        parts = ", ".join(f"{name} {time_ms:g}" for name, time_ms in stages_ms.items())
        more = f"; {self._num_passed_over} other slow ones since the last line" if self._num_passed_over else ""
        _logger.warning(
            "slow request: %.0f ms (%s), %s candidates, status %s%s",
            call.total_ms, parts or "no stage has ended", call.num_candidates or "unknown", call.status, more,
            extra={"fields": fields},
        )  # fmt: skip
        self._last_s, self._num_passed_over = time.monotonic(), 0

"""StopSignal: Ctrl-C and SIGTERM ask a run to stop at the next step, with nothing lost."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopSignal:
    """While entered, the first Ctrl-C or SIGTERM is a request; the second one acts as ever."""

    def __init__(self) -> None:
        self.is_requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _request(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.is_requested = True
        signal.signal(number, self._previous[number])

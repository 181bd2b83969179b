"""BenchProgress: which load is on; a bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class BenchProgress:
    """Shows the load that is on and the time left of all.

    Args:
        num_loads, duration_s: of the run; each load takes that long.
        stream: where to write; a bar where it is a terminal, else a line per load.
    """

    def __init__(self, num_loads: int, duration_s: float, *, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._duration_s = duration_s
        self._num_loads, self._num_begun = num_loads, 0
        self._bar: Progress | None = None
        if self._stream.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=Console(file=self._stream),
                transient=True,
            )
            self._task = self._bar.add_task("requests are made", total=num_loads * duration_s)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, name: str) -> Callable[[float], None]:
        """A load begins; gives what is told the seconds of it that have passed."""
        before_s = self._num_begun * self._duration_s
        self._num_begun += 1
        bar = self._bar
        if bar is None:
            line = f"load {self._num_begun}/{self._num_loads} · {name} · {self._duration_s:g} s"
            print(line, file=self._stream, flush=True)
            return lambda _: None
        bar.update(self._task, description=name, completed=before_s)
        return lambda passed_s: bar.update(self._task, completed=before_s + min(max(passed_s, 0.0), self._duration_s))

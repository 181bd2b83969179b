"""RowProgress: how far a pass over a split is; a bar on a terminal, plain lines elsewhere."""

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class RowProgress:
    """Shows rows, speed and time left of a pass.

    Args:
        title: what is done, such as ``encoding train``.
        num_rows: rows of the whole pass.
        stream: where to write; a bar where it is a terminal, else a line every ``interval_s``.
        is_quiet: nothing is shown.
    """

    def __init__(
        self,
        title: str,
        num_rows: int,
        *,
        stream: TextIO | None = None,
        interval_s: float = 10.0,
        is_quiet: bool = False,
    ) -> None:
        self._title = title
        self._num_rows = num_rows
        self._stream = stream or sys.stderr
        self._interval_s = interval_s
        self._is_quiet = is_quiet
        self._num_done = 0
        self._started_s = self._last_line_s = time.monotonic()
        self._bar: Progress | None = None
        if self._stream.isatty() and not is_quiet:
            self._bar = Progress(
                TextColumn("{task.description}"),
                TextColumn("rows {task.completed:,.0f}/{task.total:,.0f}"),
                BarColumn(bar_width=24),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=Console(file=self._stream),
            )
            self._task = self._bar.add_task(title, total=num_rows)
            self._bar.start()

    def advance(self, num_rows: int) -> None:
        """Some more rows are done."""
        self._num_done += num_rows
        now_s = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._num_done)
        elif now_s - self._last_line_s >= self._interval_s and not self._is_quiet:
            self._last_line_s = now_s
            rows_per_s = self._num_done / (now_s - self._started_s)
            left_s = (self._num_rows - self._num_done) / rows_per_s
            print(
                f"{self._title} · rows {self._num_done:,}/{self._num_rows:,} · {rows_per_s:,.0f} rows/s · "
                f"{left_s:,.0f} s left",
                file=self._stream,
                flush=True,
            )

    def close(self) -> None:
        """Leave the terminal as it was found."""
        if self._bar is not None:
            self._bar.stop()

"""Progress: a bar on a terminal, plain lines elsewhere, the same numbers in both."""

import sys
import time
from collections.abc import Mapping
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class ProgressLog:
    """Shows step, speed, losses, data wait and time left of a run.

    Args:
        num_steps: steps of the whole run.
        first_step: steps done before (a resumed run).
        stream: where to write; a bar where it is a terminal, else a line every ``interval_s``.
    """

    def __init__(
        self, *, num_steps: int, first_step: int = 0, stream: TextIO | None = None, interval_s: float = 10.0
    ) -> None:
        self._stream = stream or sys.stderr
        self._num_steps = num_steps
        self._interval_s = interval_s
        self._first_step = first_step
        self._started_s = self._last_line_s = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if self._stream.isatty():
            self._bar = Progress(
                TextColumn("step {task.completed:,.0f}/{task.total:,.0f}"),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
                console=Console(file=self._stream),
            )
            self._task = self._bar.add_task("starting", total=num_steps, completed=first_step)
            self._bar.start()

    def update(self, *, step: int, samples_per_s: float, losses: Mapping[str, float], wait_share: float) -> None:
        """Show a step."""
        text = describe(samples_per_s=samples_per_s, losses=losses, wait_share=wait_share)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, description=text)
            return
        now_s = time.monotonic()
        if step >= self._num_steps or now_s - self._last_line_s >= self._interval_s:
            self._last_line_s = now_s
            rate = (step - self._first_step) / max(now_s - self._started_s, 1e-9)
            left_s = (self._num_steps - step) / max(rate, 1e-9)
            self.note(f"step {step:,}/{self._num_steps:,} · {text} · {left_s:,.0f} s left")

    def note(self, text: str) -> None:
        """A line of its own, above the bar where there is one."""
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was found."""
        if self._bar is not None:
            self._bar.stop()


def describe(*, samples_per_s: float, losses: Mapping[str, float], wait_share: float) -> str:
    """One line: speed, loss per task, share of the time spent waiting for data."""
    loss_text = " ".join(f"{name} {value:.4f}" for name, value in losses.items())
    return f"{samples_per_s:,.0f} samples/s · loss {loss_text} · data wait {wait_share:.1%}"

"""Progress: a bar on a terminal, plain lines elsewhere, the same numbers in both."""

import sys
import time
from collections.abc import Mapping
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text


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
        self._live: Live | None = None
        if self._stream.isatty():
            self._bar = Progress(
                TextColumn("step {task.completed:,.0f}/{task.total:,.0f}"),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeRemainingColumn(),
                TextColumn("left"),
            )
            self._task = self._bar.add_task("", total=num_steps, completed=first_step)
            # Below the bar, where a long line can wrap: beside it the losses of many tasks would be cut off.
            self._text = Text()
            self._live = Live(Group(self._bar, self._text), console=Console(file=self._stream))
            self._live.start()

    def update(self, *, step: int, samples_per_s: float, losses: Mapping[str, float], wait_share: float) -> None:
        """Show a step."""
        text = describe(samples_per_s=samples_per_s, losses=losses, wait_share=wait_share)
        if self._live is not None:
            self._bar.update(self._task, completed=step)
            self._text.plain = text
            return
        now_s = time.monotonic()
        if step >= self._num_steps or now_s - self._last_line_s >= self._interval_s:
            self._last_line_s = now_s
            line = f"step {step:,}/{self._num_steps:,} · {text}"
            if step > self._first_step:
                left_s = (self._num_steps - step) * (now_s - self._started_s) / (step - self._first_step)
                line += f" · {left_s:,.0f} s left"
            self.note(line)

    def note(self, text: str) -> None:
        """A line of its own, above the bar where there is one."""
        if self._live is not None:
            self._live.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was found."""
        if self._live is not None:
            self._live.stop()


def describe(*, samples_per_s: float, losses: Mapping[str, float], wait_share: float) -> str:
    """One line: speed, loss per task, share of the time spent waiting for data."""
    loss_text = " ".join(f"{name} {value:.4f}" for name, value in losses.items())
    return f"{samples_per_s:,.0f} samples/s · loss {loss_text} · data wait {wait_share:.1%}"

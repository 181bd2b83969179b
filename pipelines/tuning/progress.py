"""TuneProgress: a line per trial that is over, below them a bar on a terminal."""

import sys
from collections.abc import Mapping
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pipelines.tuning.folder import TrialRecord
from pipelines.tuning.score import Score
from pipelines.tuning.space import Space, show_value

STATUS = {"finished": "", "stopped": ", stopped early", "cut": ", out of time"}


class TuneProgress:
    """Shows what trials have found.

    Args:
        num_trials: trials of the whole search.
        num_done: those of earlier calls.
        score: what trials are compared by.
        space: what is searched.
        stream: where to write; a bar where it is a terminal.
        is_quiet: nothing is shown.
    """

    def __init__(
        self,
        num_trials: int,
        num_done: int,
        score: Score,
        space: Space,
        *,
        stream: TextIO | None = None,
        is_quiet: bool = False,
    ) -> None:
        self._score = score
        self._names = space.names()
        self._num_trials = num_trials
        self._num_done = num_done
        self._stream = stream or sys.stderr
        self._is_quiet = is_quiet
        self._bar: Progress | None = None
        if self._stream.isatty() and not is_quiet:
            self._bar = Progress(
                TextColumn("trials {task.completed}/{task.total}"),
                BarColumn(bar_width=24),
                TimeElapsedColumn(),
                TextColumn("{task.description}"),
                console=Console(file=self._stream),
            )
            self._task = self._bar.add_task("", total=num_trials, completed=num_done)
            self._bar.start()

    def running(self, text: str) -> None:
        """What goes on now, beside the bar."""
        if self._bar is not None:
            self._bar.update(self._task, description=text)

    def ended(self, record: TrialRecord, best: TrialRecord | None, changes: Mapping[str, Any]) -> None:
        """A trial is over; ``changes`` is what it had that the config has not."""
        self._num_done += 1
        if self._bar is not None:
            self._bar.update(self._task, completed=self._num_done)
        named = ", ".join(f"{self._names[key]}={show_value(value)}" for key, value in changes.items())
        told = describe(record, best, self._score, named or "the config as it stands")
        self._note(f"{self._num_done}/{self._num_trials} · {told}")

    def close(self) -> None:
        """Leave the terminal as it was found."""
        if self._bar is not None:
            self._bar.stop()

    def _note(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        elif not self._is_quiet:
            print(line, file=self._stream, flush=True)


def describe(record: TrialRecord, best: TrialRecord | None, score: Score, changes: str) -> str:
    """One line: score, validations, seconds, and what was different."""
    if record.score is None:
        return f"trial {record.number} failed: {record.error} · {changes}"
    mark = " (best so far)" if best is not None and best.number == record.number else ""
    num = len(record.curve)
    return (
        f"trial {record.number} · {score.metric} {score.shown(record.score):.4f}{mark} · {num} validation"
        f"{'s' * (num > 1)}{STATUS.get(record.status, '')} · {record.seconds:,.0f} s · {changes}"
    )

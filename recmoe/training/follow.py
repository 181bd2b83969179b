"""CurveFollower: reads the curves that rank 0 writes, shows them, and passes them on."""

import json
import os
import re
import threading
from collections.abc import Callable, Mapping
from itertools import takewhile
from pathlib import Path

from recmoe.training.progress import ProgressLog

POLL_S = 0.5
CHIEF_METRIC = re.compile(r"\.(auc|rmse)\[")


class CurveFollower(threading.Thread):
    """Follows a file of curves while somebody, here or in another process, appends to it.

    Args:
        path: a JSON object per line, with ``step`` and numbers by name.
        num_steps: steps of the whole run, or None while they are not known.
        pass_on: called with step and numbers of every line, such as a tracker's ``log_metrics``.
        is_quiet: pass on without showing.
    """

    def __init__(
        self,
        path: Path,
        *,
        num_steps: Callable[[], int | None],
        pass_on: Callable[[int, Mapping[str, float]], None],
        is_quiet: bool = False,
    ) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._num_steps = num_steps
        self._pass_on = pass_on
        self._is_quiet = is_quiet
        self._is_over = threading.Event()
        self._progress: ProgressLog | None = None
        self._inode: int | None = None
        self._place = 0
        self._seen: list[int] = []

    def __enter__(self) -> "CurveFollower":
        # What an earlier process wrote, it has passed on.
        self._new_lines()
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self.join()

    def run(self) -> None:
        """Follow until told that it is over; then read the rest."""
        is_last = False
        while not is_last:
            is_last = self._is_over.wait(POLL_S)
            for line in self._new_lines():
                values = json.loads(line)
                step = values.pop("step")
                self._pass_on(step, values)
                if not self._is_quiet:
                    self._show(step, values)
        if self._progress is not None:
            self._progress.close()

    def _new_lines(self) -> list[bytes]:
        """Whole lines written since the last call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            is_same = inode == self._inode
            place = self._place if is_same else 0
            file.seek(place)
            whole, newline, _ = file.read().rpartition(b"\n")
        lines = whole.split(b"\n") if newline else []
        self._inode, self._place = inode, place + len(whole) + len(newline)
        if not is_same:
            # A restarted job has written the file anew, without the steps it does again.
            pairs = zip(self._seen, map(hash, lines), strict=False)
            num_kept = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            del self._seen[num_kept:]
            lines = lines[num_kept:]
        self._seen += map(hash, lines)
        return lines

    def _show(self, step: int, values: Mapping[str, float]) -> None:
        if self._progress is None:
            self._progress = ProgressLog(num_steps=self._num_steps() or step, first_step=step)
        losses = {name.split("/")[1]: value for name, value in values.items() if name.endswith("/loss")}
        if losses:
            self._progress.update(
                step=step,
                samples_per_s=values["train/samples_per_s"],
                losses=losses,
                wait_share=values["train/data_wait_share"],
            )
        else:
            # One number per task can be followed; the file has them all.
            metrics = {name: value for name, value in values.items() if name.startswith("val/")}
            chief = {name: value for name, value in metrics.items() if CHIEF_METRIC.search(name)} or metrics
            shown = " · ".join(f"{name.removeprefix('val/')} {value:.4f}" for name, value in chief.items())
            self._progress.note(f"step {step:,} · validation · {shown}")

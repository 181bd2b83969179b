"""Tests of RowProgress."""

import io
import os
import pty
import re
from contextlib import suppress
from typing import Any

import pytest

from recmoe.runs import row_progress
from recmoe.runs.row_progress import RowProgress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Seconds that pass when a test says so."""

    class Clock:
        now_s = 100.0

        def monotonic(self) -> float:
            return self.now_s

    made = Clock()
    monkeypatch.setattr(row_progress, "time", made)
    return made


def test_lines_tell_rows_speed_and_time_left_now_and_then(clock: Any) -> None:
    stream = io.StringIO()
    progress = RowProgress("encoding train", 4000, stream=stream)

    for _ in range(3):
        clock.now_s += 6.0
        progress.advance(600)
    progress.close()

    assert stream.getvalue() == "encoding train · rows 1,200/4,000 · 100 rows/s · 28 s left\n"


def test_quiet_progress_says_nothing(clock: Any) -> None:
    stream = io.StringIO()
    progress = RowProgress("encoding train", 4000, stream=stream, is_quiet=True)

    clock.now_s += 60.0
    progress.advance(600)
    progress.close()

    assert stream.getvalue() == ""


def test_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    reader, writer = pty.openpty()
    with open(writer, "w", encoding="utf-8") as stream:
        progress = RowProgress("encoding train", 4000, stream=stream)
        progress.advance(1000)
        progress.close()
    shown = b""
    # A terminal hands on what it has got so far; the end is an error.
    with suppress(OSError):
        while chunk := os.read(reader, 100_000):
            shown += chunk
    os.close(reader)
    seen = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())

    assert "encoding train rows 1,000/4,000" in seen
    assert "left" in seen

import io
import os
import pty
import re
from contextlib import suppress
from pathlib import Path

import pytest

from recmoe.training.progress import ProgressLog, describe

LOSSES = {"ctr": 0.5, "cvr": 0.25}


def plain(text: str) -> str:
    """Without the terminal's control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def on_terminal(monkeypatch: pytest.MonkeyPatch, *, columns: int) -> str:
    """What a terminal gets to see of three updates and a note."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.delenv("NO_COLOR", raising=False)
    reader, writer = pty.openpty()
    with open(writer, "w", encoding="utf-8") as stream:
        log = ProgressLog(num_steps=40, stream=stream)
        for step in (10, 20, 30):
            log.update(step=step, samples_per_s=12_345.6, losses=LOSSES, wait_share=0.031)
        log.note("step 30 · validation · ctr.auc[all] 0.7000")
        log.close()
    seen = b""
    # A terminal hands on what it has got so far; the end is an error.
    with suppress(OSError):
        while chunk := os.read(reader, 100_000):
            seen += chunk
    os.close(reader)
    return plain(seen.decode())


def test_terminal_shows_a_bar_with_speed_losses_wait_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = on_terminal(monkeypatch, columns=80)

    assert "step 30/40" in seen
    assert "75%" in seen
    assert re.search(r"(\d:\d\d:\d\d|-:--:--) left", seen)
    assert "12,346 samples/s · loss ctr 0.5000 cvr 0.2500 · data wait 3.1%" in seen
    assert "step 30 · validation · ctr.auc[all] 0.7000" in seen


def test_narrow_terminal_loses_none_of_the_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = " ".join(on_terminal(monkeypatch, columns=50).split())

    assert "12,346 samples/s · loss ctr 0.5000 cvr 0.2500 · data wait 3.1%" in seen


def test_file_gets_plain_lines(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        log = ProgressLog(num_steps=40, stream=stream, interval_s=0.0)
        log.update(step=10, samples_per_s=12_345.6, losses=LOSSES, wait_share=0.031)
        log.note("validated")
        log.close()

    line, note = (tmp_path / "log").read_text().splitlines()
    assert re.fullmatch(
        r"step 10/40 · 12,346 samples/s · loss ctr 0\.5000 cvr 0\.2500 · data wait 3\.1% · \d+ s left", line
    )
    assert note == "validated"


def test_lines_are_rare_and_the_last_step_has_one() -> None:
    stream = io.StringIO()
    log = ProgressLog(num_steps=40, stream=stream, interval_s=1000.0)

    for step in (10, 20, 30, 40):
        log.update(step=step, samples_per_s=1.0, losses=LOSSES, wait_share=0.0)

    assert [line.split(" · ")[0] for line in stream.getvalue().splitlines()] == ["step 40/40"]


def test_time_left_is_not_guessed_from_no_steps() -> None:
    stream = io.StringIO()
    log = ProgressLog(num_steps=40, first_step=10, stream=stream, interval_s=0.0)

    log.update(step=10, samples_per_s=1.0, losses=LOSSES, wait_share=0.0)

    assert "left" not in stream.getvalue()


def test_description_holds_every_task() -> None:
    text = describe(samples_per_s=1e6, losses={"a": 1.0, "b": 2.0, "c": 3.0}, wait_share=1.0)

    assert text == "1,000,000 samples/s · loss a 1.0000 b 2.0000 c 3.0000 · data wait 100.0%"

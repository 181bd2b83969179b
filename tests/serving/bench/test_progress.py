import io
import re

from serving.bench.progress import BenchProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_away_from_a_terminal_every_load_is_a_line() -> None:
    stream = io.StringIO()

    with BenchProgress(2, 10.0, stream=stream) as progress:
        progress.begin("8 connections")(3.0)
        progress.begin("25% of saturation")(3.0)

    assert stream.getvalue() == "load 1/2 · 8 connections · 10 s\nload 2/2 · 25% of saturation · 10 s\n"


def test_bar_counts_the_seconds_of_all_loads() -> None:
    with BenchProgress(2, 10.0, stream=Terminal()) as progress:
        progress.begin("8 connections")
        tick = progress.begin("25% of saturation")
        tick(-0.2)
        tick(3.0)
        assert progress._bar is not None
        task = progress._bar.tasks[0]
        done = (task.description, task.completed, task.total)
        tick(30.0)
        last = task.completed

    assert done == ("25% of saturation", 13.0, 20.0)
    assert last == 20.0


def test_terminal_is_left_as_it_was() -> None:
    stream = Terminal()

    with BenchProgress(1, 1.0, stream=stream) as progress:
        progress.begin("8 connections")(1.0)

    assert "8 connections" in stream.getvalue()
    assert re.search(r"\x1b\[\?25h", stream.getvalue())

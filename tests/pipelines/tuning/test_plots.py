"""Plots of a search: what stands at their axes."""

import re
from pathlib import Path

import pytest

from pipelines.tuning.dimension import Range
from pipelines.tuning.folder import TrialRecord
from pipelines.tuning.page import write_tune_page
from pipelines.tuning.plots import history_plot, key_plot
from pipelines.tuning.score import Score
from pipelines.tuning.space import Space
from recmoe.experiment import ExperimentConfig

LR = "tables.optimizer.lr"
RANGE = Range(low=1e-6, high=1.0, log=True)
SCORE = Score("ctr.auc[all]", is_higher_better=True)


def records(*rates: float) -> list[TrialRecord]:
    return [TrialRecord(number, {LR: rate}, "finished", 0.6 + 0.01 * number) for number, rate in enumerate(rates)]


def texts(svg: str) -> list[str]:
    """What matplotlib has drawn as paths, from left to right and then upwards."""
    return re.findall(r"<!-- (.*?) -->", svg)


@pytest.mark.parametrize(
    ("rates", "ticks"),
    [
        ((0.002, 0.004, 0.01, 0.04), ["0.003", "0.01", "0.03"]),
        ((0.002, 0.012), ["0.002", "0.005", "0.01"]),
        ((1e-5, 0.9), ["0.0001", "0.01", "1"]),
    ],
)
def test_rates_are_written_in_full_and_do_not_overlap(rates: tuple[float, ...], ticks: list[str]) -> None:
    shown = texts(key_plot(records(*rates), LR, RANGE, SCORE))

    below = shown[: next(place for place, text in enumerate(shown) if text.startswith("0.6"))]
    assert below == ticks


def test_trials_are_counted_in_whole_numbers() -> None:
    shown = texts(history_plot(records(0.1, 0.2, 0.3, 0.4), SCORE))

    assert shown[: shown.index("trials over")] == ["1", "2", "3", "4"]


def test_wide_plots_can_be_scrolled_on_a_narrow_screen(base: ExperimentConfig, tmp_path: Path) -> None:
    found = records(*(0.01 * 1.5**number for number in range(12)))

    write_tune_page(found, Space({LR: RANGE}), base, SCORE, tmp_path / "tune.html")

    page = (tmp_path / "tune.html").read_text()
    assert "min-width: 640px" in page
    assert re.findall(r'<div class="scroll"><img src="[^"]+" alt="([^"]+)"></div>', page) == [
        "score of each trial and the best so far",
        "importance of each key",
    ]

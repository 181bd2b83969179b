"""plot_days(): how yesterday's models did on the days that followed, as a picture."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from recmoe.evaluation.main_metrics import main_metrics
from recmoe.evaluation.plots import BLUE, GREY, ORANGE, STYLE

MAX_LABELS = 12
"""Days named below a plot; more would run into each other."""


class PlottedDay(Protocol):
    """What a plot needs of a day."""

    @property
    def day(self) -> str: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...
    @property
    def frozen(self) -> Mapping[str, float]: ...
    @property
    def intervals(self) -> Mapping[str, tuple[float, float]]: ...
    @property
    def ids(self) -> Mapping[str, Mapping[str, float]]: ...


def day_label(name: str) -> str:
    """What a tick says: the date in a name, else what stands behind its ``day=``, else the name."""
    date = re.search(r"\d{4}([-_]?)\d{2}\1\d{2}", name)
    return date[0] if date else name.rpartition("=")[2]


def plot_days(days: Sequence[PlottedDay], path: Path) -> None:
    """Write a PNG: a panel per main metric, and one for the tables of dynamic ids, over the days."""
    metrics = main_metrics(name for day in days for name in day.metrics)
    tables = list(dict.fromkeys(table for day in days for table in day.ids))
    num_panels = len(metrics) + bool(tables)
    if not num_panels:
        return
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 2.2 * num_panels), layout="constrained")
        panels = figure.subplots(num_panels, 1, squeeze=False, sharex=True)[:, 0]
        for axes, metric in zip(panels, metrics, strict=False):
            _plot_metric(axes, days, metric)
        if tables:
            _plot_tables(panels[-1], days, tables)
        step = max(1, -(-len(days) // MAX_LABELS))
        panels[-1].set_xticks(
            range(0, len(days), step), [day_label(day.day) for day in days[::step]], rotation=30, ha="right"
        )
        figure.savefig(path, dpi=120)


def _plot_metric(axes: Axes, days: Sequence[PlottedDay], metric: str) -> None:
    nothing = float("nan")
    numbers = range(len(days))
    if any(day.frozen for day in days):
        axes.plot(numbers, [day.frozen.get(metric, nothing) for day in days], color=GREY, marker="o", markersize=3,
                  label="first day's model, frozen")  # fmt: skip
    axes.plot(numbers, [day.metrics.get(metric, nothing) for day in days], color=BLUE, marker="o", markersize=3,
              label="yesterday's model")  # fmt: skip
    low, high = zip(*(day.intervals.get(metric, (nothing, nothing)) for day in days), strict=True)
    if any(math.isfinite(value) for value in low):
        axes.fill_between(numbers, low, high, color=BLUE, alpha=0.15, linewidth=0, label="95 % interval")
        # A day between two without an interval has no area.
        axes.vlines(numbers, low, high, color=BLUE, alpha=0.4, linewidth=1)
    axes.set_title(f"{metric} on rows not trained on yet", loc="left", fontsize=9)
    axes.legend(loc="best")


def _plot_tables(axes: Axes, days: Sequence[PlottedDay], tables: Sequence[str]) -> None:
    """Rows in use, and what looks up row 0: both are shares."""
    colours = [BLUE, ORANGE, "#3d8f5f", "#8a5fb0"]
    for index, table in enumerate(tables):
        updates = [day.ids.get(table) for day in days]
        used = [u["rows_used"] / u["capacity"] if u else float("nan") for u in updates]
        unknown = [u["unknown_share"] if u else float("nan") for u in updates]
        colour = colours[index % len(colours)]
        axes.plot(range(len(days)), used, color=colour, label=f"{table}: rows in use")
        axes.plot(range(len(days)), unknown, color=colour, linestyle="--", label=f"{table}: ids at row 0")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylim(0, 1.05)
    axes.set_title("dynamic ids after each day's update", loc="left", fontsize=9)
    axes.legend(loc="best")

"""Quality against work: a panel per log, a point per variant, what needs no experts as a line."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.comparison.page import Compared
from benchmarks.comparison.rows import Row
from benchmarks.comparison.variants import REFERENCES
from recmoe.evaluation.metrics import metric_best
from recmoe.evaluation.plots import BLUE, GREY, INK, ORANGE, STYLE

NUM_COLUMNS = 2
PANEL_SIZE = (5.2, 3.8)
"""Width and height in inches."""


def draw(compared: Sequence[Compared], path: Path) -> None:
    """Write a PNG; nothing where no variant has been trained."""
    shown = [one for one in compared if any(_place(one, row) for row in one.rows)]
    if not shown:
        return
    num_columns = min(NUM_COLUMNS, len(shown))
    num_lines = -(-len(shown) // num_columns)
    with mpl.rc_context(STYLE):
        size = (PANEL_SIZE[0] * num_columns, PANEL_SIZE[1] * num_lines)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(num_lines, num_columns, squeeze=False).flatten()
        for axes, one in zip(panels, shown, strict=False):
            _panel(axes, one)
        for axes in panels[len(shown) :]:
            axes.set_axis_off()
        figure.savefig(path, dpi=110)


def _panel(axes: Axes, one: Compared) -> None:
    metric = one.metrics[0]
    points = {row.name: place for row in one.rows if (place := _place(one, row))}
    front = _front(points, is_highest_best=metric_best(metric) == "highest")
    for name, place in points.items():
        color = ORANGE if name in REFERENCES else BLUE if name in front else GREY
        axes.plot(*place, "o", color=color, markersize=5, zorder=1 if color == GREY else 2)
    _interval(axes, one)
    # Names would cover each other, and the points.
    named = sorted({*REFERENCES, *front} & points.keys(), key=lambda name: points[name][0])
    for number, name in enumerate(named, start=1):
        axes.annotate(str(number), points[name], xytext=(4, 4), textcoords="offset points", fontsize=8, color=INK)
    names = "\n".join(f"{number}  {name}" for number, name in enumerate(named, start=1))
    axes.text(0.99, 0.02, names, transform=axes.transAxes, ha="right", va="bottom", fontsize=7, color=INK)
    for row in one.rows:
        cell = row.cells.get(metric)
        if row.sizes is None and cell is not None and cell.estimate.value is not None:
            axes.axhline(cell.estimate.value, color=INK, linewidth=0.8, linestyle="--")
            axes.annotate(
                row.name.replace("_", " "), (0.01, cell.estimate.value), xycoords=axes.get_yaxis_transform(),
                xytext=(0, 2), textcoords="offset points", fontsize=7, color=INK,
            )  # fmt: skip
    axes.set_xscale("log")
    axes.set_title(one.log, loc="left", fontsize=10, color=INK)
    axes.set_xlabel("kFLOP per row in training")
    axes.set_ylabel(metric)


def _interval(axes: Axes, one: Compared) -> None:
    """How sure the first reference is; the intervals of all would hide the points, and are as wide."""
    row = one.of(REFERENCES[0])
    place = None if row is None else _place(one, row)
    if row is None or place is None:
        return
    estimate, (work, value) = row.cells[one.metrics[0]].estimate, place
    if estimate.low is not None and estimate.high is not None:
        ends = [[value - estimate.low], [estimate.high - value]]
        axes.errorbar([work], [value], yerr=ends, color=ORANGE, linewidth=0.8, capsize=2, alpha=0.6)


def _place(one: Compared, row: Row) -> tuple[float, float] | None:
    """Work and quality; None for a row that lacks one of them."""
    cell = row.cells.get(one.metrics[0])
    if row.sizes is None or cell is None or cell.estimate.value is None:
        return None
    return row.sizes.flops / 1000, cell.estimate.value


def _front(points: dict[str, tuple[float, float]], *, is_highest_best: bool) -> set[str]:
    """Names of those that are better than all that need no more work."""
    sign = 1.0 if is_highest_best else -1.0
    front: set[str] = set()
    best = -float("inf")
    for name, (_, value) in sorted(points.items(), key=lambda point: (point[1][0], -sign * point[1][1])):
        if sign * value > best:
            best = sign * value
            front.add(name)
    return front

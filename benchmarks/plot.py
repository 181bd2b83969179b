"""The results as one picture: a panel per model, a bar per participant, the machine's limits as lines."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.limit import best_rates, limit_samples_per_s
from benchmarks.results import OURS, Results, Row
from recmoe.evaluation.plots import BLUE, GREY, INK, ORANGE, STYLE

BEHIND = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
"""Behind numbers that a line may cross."""
LIMIT_COLOURS = {"fp32": GREY, "bf16": ORANGE}


def draw(results: Results, path: Path) -> None:
    """Write a PNG."""
    rows = results.rows()
    models = list(dict.fromkeys(row.model for row in rows))
    if not models:
        return
    with mpl.rc_context(STYLE):
        height = 0.9 + 0.32 * max(sum(row.model == model for row in rows) for model in models)
        figure = Figure(figsize=(5.4 * len(models), height + 0.5), layout="constrained")
        for axes, model in zip(figure.subplots(1, len(models), squeeze=False)[0], models, strict=True):
            _panel(axes, model, [row for row in rows if row.model == model], results)
        figure.savefig(path, dpi=150)


def _panel(axes: Axes, model: str, rows: list[Row], results: Results) -> None:
    rows = sorted(rows, key=lambda row: row.samples_per_s)
    names = [f"{row.participant}, {row.precision}" for row in rows]
    speeds = [row.samples_per_s / 1000 for row in rows]
    colours = [BLUE if row.participant == OURS else GREY for row in rows]
    bars = axes.barh(names, speeds, color=colours, height=0.66)
    axes.bar_label(bars, labels=[f"{speed:.1f}" for speed in speeds], padding=3, fontsize=8, color=INK, bbox=BEHIND)
    longest = max(speeds)
    if results.rates and model in results.work:
        measured = {row.precision for row in rows if row.participant == OURS}
        for precision, colour in LIMIT_COLOURS.items():
            if precision not in measured:
                continue
            limit = limit_samples_per_s(results.work[model], best_rates(results.rates), precision) / 1000
            longest = max(longest, limit)
            line = "--" if precision == "fp32" else "-"
            axes.axvline(limit, color=INK if precision == "fp32" else colour, linestyle=line, linewidth=1.2)
            text = f"{precision} limit {limit:.0f}"
            axes.annotate(
                text,
                (limit, 0.02),
                xycoords=axes.get_xaxis_transform(),
                xytext=(-4, 0),
                textcoords="offset points",
                rotation=90,
                ha="right",
                fontsize=8,
                bbox=BEHIND,
            )
    axes.set_xlim(0, 1.08 * longest)
    axes.set_title(model.upper() if model == "ple" else "MMoE", loc="left", fontsize=10, color=INK)
    axes.set_xlabel("thousand samples per second, reading included")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)

"""Plots of a report page, each drawn as SVG text without a display."""

# N rows

import base64
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from recmoe.evaluation.baselines import Comparison, title
from recmoe.evaluation.curves import gain_curve, reliability_bins, roc_curve, wilson
from recmoe.evaluation.metrics.metric import FloatArray

BLUE, ORANGE, GREY, INK = "#2563a8", "#d9762b", "#b4bac4", "#2a2f3a"

PLOT_SIZE = (3.6, 3.0)
"""Width and height in inches."""

BESIDE_SIZE = (3.6, 1.7)

STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.edgecolor": "#c9ced6",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eceef1",
    "xtick.color": "#5b6472",
    "ytick.color": "#5b6472",
    "legend.frameon": False,
    "legend.fontsize": 8,
    # Without a salt the ids inside an SVG are random, and the same report would not give the same page.
    "svg.hashsalt": "recmoe",
}


def beside_plot(comparisons: Sequence[Comparison]) -> str:
    """The main number of a task: model above baselines, each with its interval."""

    def draw(axes: Axes) -> None:
        named = [("model", comparisons[0].model)]
        named += [(title(one.kind, one.metric), one.baseline) for one in comparisons]
        for place, (name, estimate) in enumerate(named):
            if estimate.value is None:
                continue
            low = estimate.value if estimate.low is None else estimate.low
            high = estimate.value if estimate.high is None else estimate.high
            color = BLUE if name == "model" else GREY
            axes.plot([low, high], [place, place], color=color, linewidth=2, solid_capstyle="round")
            axes.plot([estimate.value], [place], "o", color=color, markersize=6)
            axes.annotate(
                f"{estimate.value:.3f}" if abs(estimate.value) < 1000 else f"{estimate.value:,.0f}",
                (estimate.value, place), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8, color=INK,
            )  # fmt: skip
        axes.set_yticks(range(len(named)), [name for name, _ in named])
        axes.set_ylim(len(named) - 0.4, -0.6)
        axes.margins(x=0.15)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(comparisons[0].metric.upper())

    return draw_svg(draw, size=BESIDE_SIZE)


def roc_plot(scores_N: FloatArray, labels_N: FloatArray) -> str:
    """True against false positive rate."""

    def draw(axes: Axes) -> None:
        curve = roc_curve(scores_N, labels_N)
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="chance")
        axes.plot(curve.x_P, curve.y_P, color=BLUE, linewidth=1.8, label="model")
        axes.set(xlabel="share of negatives above threshold", ylabel="share of positives above threshold")
        _unit_square(axes)
        axes.legend(loc="lower right")

    return draw_svg(draw)


def reliability_plot(scores_N: FloatArray, labels_N: FloatArray, *, is_binary: bool) -> str:
    """Mean label against mean prediction in bins of equal mass, with 95 % intervals.

    On logarithmic axes where the rates are small or span more than a factor of 50: on linear ones the bins of a
    rare label lie on top of each other.
    """

    def draw(axes: Axes) -> None:
        bins = reliability_bins(scores_N, labels_N, is_binary=is_binary)
        positive = np.concatenate([bins.predicted_U, bins.observed_U])
        positive = positive[positive > 0]
        is_log = _wants_log(bins.predicted_U, is_binary=is_binary) and len(positive) > 0
        low, high = _limits(positive if is_log else np.concatenate([bins.predicted_U, bins.low_U, bins.high_U]), is_log)
        axes.plot([low, high], [low, high], color=GREY, linestyle="--", linewidth=1, label="right on average")
        errors = np.stack([bins.observed_U - bins.low_U, bins.high_U - bins.observed_U]).clip(min=0)
        is_shown = bins.observed_U > 0 if is_log else np.ones(len(bins.observed_U), dtype=bool)
        axes.errorbar(
            bins.predicted_U[is_shown],
            bins.observed_U[is_shown],
            yerr=errors[:, is_shown],
            fmt="o",
            color=BLUE,
            markersize=4,
            linewidth=1,
            label=_bins_label(bins.num_rows_U, num_empty=int((~is_shown).sum())),
        )
        if is_log:
            axes.set(xscale="log", yscale="log")
            _plain_log_ticks(axes.xaxis, low, high)
            _plain_log_ticks(axes.yaxis, low, high)
        axes.set(xlim=(low, high), ylim=(low, high), xlabel="mean prediction", ylabel="mean label")
        if is_binary:
            axes.legend(loc="best")
        else:
            # What is best does not see the intervals, which are long here.
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)

    # Values may have long tick labels; the rates of a binary label fit the fixed margins.
    return draw_svg(draw, size=None if is_binary else PLOT_SIZE)


def level_plot(quantile_U: FloatArray, share_U: FloatArray, *, num_rows: int) -> str:
    """Shares of ``num_rows`` labels at or below quantiles, against the quantiles, with 95 % intervals."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
        low_U, high_U = wilson(share_U, np.full(len(share_U), num_rows))
        axes.errorbar(quantile_U, share_U, yerr=np.stack([share_U - low_U, high_U - share_U]).clip(min=0), fmt="o")
        _unit_square(axes)
        axes.set(xlabel="quantile", ylabel="labels at or below")

    return draw_svg(draw)


def gain_plot(scores_N: FloatArray, labels_N: FloatArray, *, of: str) -> str:
    """Cumulative gain: how much of all labels the best-scored rows hold; the lift of the best tenth in the legend."""

    def draw(axes: Axes) -> None:
        curve = gain_curve(scores_N, labels_N)
        best = gain_curve(labels_N, labels_N)
        top = float(np.interp(0.1, curve.x_P, curve.y_P))
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="chance")
        axes.plot(best.x_P, best.y_P, color=GREY, linewidth=1.2, label="best possible")
        axes.plot(curve.x_P, curve.y_P, color=BLUE, linewidth=1.8, label="model")
        axes.plot([0.1], [top], "o", color=ORANGE, markersize=5, label=f"best 10 %: {top:.0%} (lift {top / 0.1:.1f})")
        axes.set(xlabel="share of rows, best first", ylabel=f"share of {of} found")
        _unit_square(axes)
        axes.legend(loc="lower right")

    return draw_svg(draw)


def score_plot(scores_N: FloatArray, labels_N: FloatArray) -> str:
    """Distribution of predicted probabilities, by label."""

    def draw(axes: Axes) -> None:
        is_log = _wants_log(np.percentile(scores_N, [1, 99]), is_binary=True) and scores_N.min() > 0
        edges = _edges(scores_N, is_log=is_log)
        for label, color, name in ((0, GREY, "label 0"), (1, ORANGE, "label 1")):
            chosen = scores_N[labels_N == label]
            if len(chosen):
                _histogram(axes, chosen, edges, color=color, label=f"{name} ({len(chosen):,})")
        if is_log:
            axes.set_xscale("log")
            _plain_log_ticks(axes.xaxis, edges[0], edges[-1])
        axes.set(xlabel="predicted probability", ylabel="share of the rows of a label")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.margins(y=0.25)
        axes.legend(loc="upper right")

    return draw_svg(draw)


def value_plot(scores_N: FloatArray, labels_N: FloatArray) -> str:
    """Distributions of predicted and of true values."""

    def draw(axes: Axes) -> None:
        both = np.concatenate([scores_N, labels_N])
        low, high = np.percentile(both, [0.5, 99.5])
        edges = np.linspace(low, high if high > low else low + 1, 41)
        for values, color, name in ((labels_N, GREY, "label"), (scores_N, BLUE, "prediction")):
            _histogram(axes, values.clip(*edges[[0, -1]]), edges, color=color, label=name)
        axes.set(xlabel="value (the extremes in the outer bars)", ylabel="share of rows")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.margins(y=0.25)
        axes.legend(loc="upper right")

    return draw_svg(draw, size=PLOT_SIZE)


@dataclass(frozen=True)
class Plot:
    """A picture of a page, or why there is none."""

    title: str
    explanation: str
    image: str | None
    """SVG as a data URI."""
    reason: str | None = None
    is_wide: bool = False


def data_uri(svg: str) -> str:
    """An image of its own: ids inside one SVG cannot meet those of another."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def draw_svg(draw: Callable[[Axes], None], *, size: tuple[float, float] | None = None) -> str:
    """A figure of one plot.

    Args:
        size: width and height in inches, with margins that fit the labels; by default fixed margins and the size of
            the page's plots, which takes half the time.
    """

    def draw_one(figure: Figure) -> None:
        if size is None:
            figure.subplots_adjust(left=0.2, right=0.95, top=0.97, bottom=0.16)
        draw(figure.add_subplot())

    return draw_figure(draw_one, size=size or PLOT_SIZE, fits_labels=size is not None)


def draw_figure(
    draw: Callable[[Figure], None], *, size: tuple[float, float], fits_labels: bool = True, names: Sequence[str] = ()
) -> str:
    """A figure as SVG text.

    Args:
        size: width and height in inches.
        fits_labels: margins fit the labels.
        names: in it; where they have letters that this font lacks, the browser writes them.
    """
    style = STYLE if "".join(names).isascii() else {**STYLE, "svg.fonttype": "none"}
    with mpl.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=size, layout="constrained" if fits_labels else None)
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def _histogram(axes: Axes, values: FloatArray, edges: FloatArray, *, color: str, label: str) -> None:
    """Shares of the values per bin, as one filled outline: bars of their own would be drawn one by one."""
    counts, _ = np.histogram(values, bins=edges)
    axes.stairs(counts / len(values), edges, fill=True, color=color, alpha=0.65, label=label)


def _unit_square(axes: Axes) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _plain_log_ticks(axis: Axis, low: float, high: float) -> None:
    """0.01, 0.1 instead of powers; also 0.02 and 0.05 where the axis is short."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _wants_log(values: FloatArray, *, is_binary: bool) -> bool:
    """Whether probabilities are small or span orders of magnitude."""
    low, high = float(values.min()), float(values.max())
    return is_binary and low > 0 and (high < 0.1 or high / low > 50)


def _limits(values: FloatArray, is_log: bool) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if is_log:
        return low / 1.6, high * 1.6
    margin = 0.05 * (high - low) or 0.05 * max(abs(high), 1.0)
    return low - margin, high + margin


def _edges(scores_N: FloatArray, *, is_log: bool) -> FloatArray:
    low, high = float(scores_N.min()), float(scores_N.max())
    if high <= low:
        low, high = low * 0.8, low * 1.2 or 1.0
    edges: FloatArray = np.geomspace(low, high, 41) if is_log else np.linspace(low, high, 41)
    return edges


def _bins_label(num_rows_U: Any, *, num_empty: int) -> str:
    low, high = int(num_rows_U.min()), int(num_rows_U.max())
    rows = f"{low:,}" if low == high else f"{low:,}–{high:,}"
    empty = f"\n({num_empty} more without a positive)" if num_empty else ""
    return f"{len(num_rows_U) - num_empty} bins of {rows} rows{empty}"

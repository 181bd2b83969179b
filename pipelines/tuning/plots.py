"""The plots of a search's page, each one SVG file as text."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from pipelines.tuning.dimension import Choices, Dimension
from pipelines.tuning.folder import TrialRecord, best_of
from pipelines.tuning.score import Score
from pipelines.tuning.space import show_value
from recmoe.evaluation.plots import BLUE, GREY, INK, ORANGE, draw_svg

SIZE = (3.6, 2.7)
WIDE = (8.6, 3.2)
"""Width and height in inches."""


def history_plot(records: Sequence[TrialRecord], score: Score) -> str:
    """The score of each trial in the order of their ends, and the best so far."""
    scored = [(index, record) for index, record in enumerate(records, start=1) if record.score is not None]
    assert scored

    def draw(axes: Axes) -> None:
        values = np.array([score.shown(record.score or 0.0) for _, record in scored])
        places = [index for index, _ in scored]
        best = np.maximum.accumulate(values) if score.is_higher_better else np.minimum.accumulate(values)
        axes.step(places, best, where="post", color=BLUE, linewidth=1.4, label="best so far")
        for is_whole, color, label in ((True, BLUE, "trained to the end"), (False, GREY, "stopped early")):
            chosen = [(record.status == "finished") == is_whole for _, record in scored]
            if any(chosen):
                axes.scatter(np.array(places)[chosen], values[chosen], s=22, color=color, label=label, zorder=3)
        before = next((score.shown(record.score or 0.0) for _, record in scored if record.number == 0), None)
        if before is not None:
            axes.axhline(before, color=ORANGE, linestyle="--", linewidth=1, label="the config as it stood")
        axes.set(xlabel="trials over", ylabel=score.metric)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=4)

    return draw_svg(draw, size=WIDE)


def importance_plot(shares: Mapping[str, float], names: Mapping[str, str]) -> str:
    """A bar per key, the most important one at the top."""

    def draw(axes: Axes) -> None:
        keys = list(shares)[::-1]
        bars = axes.barh([names[key] for key in keys], [shares[key] for key in keys], color=BLUE, height=0.62)
        axes.bar_label(bars, [f"{shares[key]:.0%}" for key in keys], padding=4, color=INK, fontsize=8)
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="share", xlim=(0, max(shares.values()) * 1.15 or 1.0))

    return draw_svg(draw, size=(WIDE[0], 0.9 + 0.27 * len(shares)))


def key_plot(records: Sequence[TrialRecord], key: str, dimension: Dimension, score: Score) -> str:
    """The score against the values of one key; the best trial and the config as it stood stand out."""
    having = [record for record in records if record.score is not None and key in record.values]
    assert having
    best = best_of(records)

    def draw(axes: Axes) -> None:
        values = [record.values[key] for record in having]
        places: Sequence[float] = values
        if isinstance(dimension, Choices):
            labels = list(dict.fromkeys([*map(dimension.encode, dimension.choices), *map(dimension.encode, values)]))
            # Points of one choice would hide each other.
            nudges = np.random.default_rng(0).uniform(-0.15, 0.15, len(values))
            places = [
                labels.index(dimension.encode(value)) + nudge for value, nudge in zip(values, nudges, strict=True)
            ]
            shown = [_short(show_value(dimension.decode(label))) for label in labels]
            is_long = sum(map(len, shown)) > 30
            axes.set_xticks(
                range(len(labels)), shown, rotation=30 if is_long else 0, ha="right" if is_long else "center"
            )
            axes.set_xlim(-0.5, len(labels) - 0.5)
        is_log = not isinstance(dimension, Choices) and dimension.log
        if is_log:
            axes.set_xscale("log")
        for record, place in zip(having, places, strict=True):
            is_best = best is not None and record.number == best.number
            color = BLUE if is_best else ORANGE if record.number == 0 else GREY
            is_special = is_best or record.number == 0
            axes.scatter([place], [score.shown(record.score or 0.0)], s=34 if is_special else 18, color=color,
                         zorder=4 if is_special else 3, alpha=1.0 if record.status == "finished" else 0.6)  # fmt: skip
        axes.set(ylabel=score.metric)
        if is_log:
            _plain_log_ticks(axes)

    return draw_svg(draw, size=SIZE)


def _plain_log_ticks(axes: Axes) -> None:
    """Up to five numbers below a logarithmic axis, written in full."""
    low, high = axes.get_xlim()
    ratio = high / low
    subs = (1, 2, 5) if ratio < 10 else (1, 3) if ratio < 100 else (1,)
    axes.xaxis.set_major_locator(MaxNLocator(3) if ratio < 5 else LogLocator(subs=subs, numticks=5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _short(text: str) -> str:
    return text if len(text) <= 18 else text[:17] + "…"

"""Pictures of what gates and experts do: heat maps of use and similarity, and both over the steps of a run."""

# G gates, E experts, S segments, R rows of a heat map, P evaluations of a run

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from recmoe.evaluation.metrics.metric import FloatArray
from recmoe.evaluation.plots import BLUE, GREY, INK, ORANGE, draw_figure
from recmoe.moe.balance import ExpertUsage
from recmoe.moe.balance.statistics import SMALLEST_SHARE, relative
from recmoe.moe.segment_use import SegmentUse

MORE_OR_LESS = LinearSegmentedColormap.from_list("more or less", [ORANGE, "#ffffff", BLUE])
LARGEST_SHIFT = 0.25
"""A share that differs by so much from that over all rows has the full colour."""
EVEN_SHARES = (0.0, 2.0)
"""From white to the full colour: nothing, and twice an even share or more."""
FEW, MANY = 12, 40
"""Experts up to which numbers are large, and up to which there are any."""
WIDEST = 12.0
"""Width of a heat map, in inches."""
LINES = (BLUE, ORANGE, "#3a8f5d", "#8456a8", "#b03a48", "#7a6a4f", "#2c8c99", "#c2a83e")


def gate_plot(usage: ExpertUsage) -> str:
    """Heat map of the mean weight that each gate of a level gives each expert; hatched where a gate does not see it.

    The colour is in even shares, so that it says the same of few and of many experts.
    """
    num_gates, num_experts = usage.usage_GE.shape

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        weights_GE = np.where(usage.visible_GE.numpy(), usage.usage_GE.numpy(), np.nan)
        shares_GE = relative(usage.usage_GE, usage.visible_GE, sums_to_one=False).numpy()
        _heat(axes, weights_GE, shares_GE, colors="Blues", limits=EVEN_SHARES)
        _name(axes, usage.experts, usage.gates)

    size = (1.4 + _cell(num_experts) * num_experts, 0.9 + 0.42 * num_gates)
    return draw_figure(draw, size=size, names=[*usage.experts, *usage.gates])


def segment_plot(use: SegmentUse, gate: str, similarity: Mapping[str, float | None]) -> str:
    """What a gate gives the experts that it sees, segment by segment.

    In numbers the mean weights; in colour, how much a share differs from that over all rows. To the right the entropies
    of a row (open) and of all rows together (filled), and the similarity of the experts.

    Args:
        similarity: by segment, the mean over the pairs of experts that the gate sees.
    """
    place = use.gates.index(gate)
    seen_E = use.visible_GE[place].numpy()
    rows_S = use.num_rows_SG[:, place].numpy()
    shown = np.flatnonzero(rows_S > 0)
    names = [name for name, is_seen in zip(use.experts, seen_E, strict=True) if is_seen]
    cell = 0.8 * _cell(len(names))
    labels = [f"{use.segments[row]} ({int(rows_S[row]):,})" for row in shown]

    def draw(figure: Figure) -> None:
        widths = [cell * len(names), 1.3]
        heat, side = figure.subplots(1, 2, width_ratios=widths, sharey=True)
        usage_RE = use.usage_SGE[shown, place].numpy()[:, seen_E]
        shares_RE = use.shares_SGE[shown, place].numpy()[:, seen_E]
        limits = (-LARGEST_SHIFT, LARGEST_SHIFT)
        _heat(heat, usage_RE, shares_RE - shares_RE[0], colors=MORE_OR_LESS, limits=limits)
        _name(heat, names, labels)
        _entropies(side, use.row_entropy_SG[shown, place].numpy(), use.total_entropy_SG[shown, place].numpy())
        for row, segment in enumerate(use.segments[index] for index in shown):
            value = similarity.get(segment)
            text = "–" if value is None else f"{value:.2f}"
            side.text(1.4, row, text, ha="center", va="center", color=INK, clip_on=False)
        side.text(1.4, -0.75, "alike", ha="center", va="bottom", fontsize=8, color="#5b6472", clip_on=False)

    size = (2.1 + 0.07 * max(map(len, labels)) + cell * len(names), 1.2 + 0.26 * len(shown))
    return draw_figure(draw, size=size, names=[*names, *labels])


def similarity_plot(experts: Sequence[str], cka_EE: FloatArray) -> str:
    """Heat map of the similarity of every two experts; hatched for an expert that gives the same in every row."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        _heat(axes, cka_EE, cka_EE, colors="Oranges", limits=(0.0, 1.0), has_diagonal=False)
        _name(axes, experts, experts)

    cell = 0.52 if len(experts) <= FEW else min(0.24, WIDEST / len(experts))
    return draw_figure(draw, size=(1.1 + cell * len(experts), 1.0 + 0.8 * cell * len(experts)), names=experts)


def usage_over_time_plot(steps: Sequence[int], usage: Mapping[tuple[str, str], FloatArray]) -> str:
    """Heat map of what gates gave experts at every evaluation, in even shares: white is nothing, dark twice as much.

    Args:
        usage: P mean weights by gate and expert.
    """
    even: dict[str, list[FloatArray]] = {}
    for (gate, _), usage_P in usage.items():
        even.setdefault(gate, []).append(usage_P)
    shares = {
        (gate, expert): usage_P / np.mean(even[gate], axis=0).clip(min=SMALLEST_SHARE)
        for (gate, expert), usage_P in usage.items()
    }
    return _over_time(steps, shares, limits=EVEN_SHARES, ticks={0.0: "0", 1.0: "even", 2.0: "2 ×"})


def shift_over_time_plot(steps: Sequence[int], shift: Mapping[tuple[str, str], FloatArray]) -> str:
    """Heat map of how much what gates gave differed in each segment from all rows, at every evaluation.

    Args:
        shift: P parts of all weight by gate and segment.
    """
    return _over_time(
        steps, shift, limits=(0.0, LARGEST_SHIFT), ticks={0.0: "0", LARGEST_SHIFT: f"{LARGEST_SHIFT:.0%}"}
    )


def lines_over_time_plot(
    steps: Sequence[int], solid: Mapping[str, FloatArray], dashed: Mapping[str, FloatArray], *, label: str
) -> str:
    """Numbers between 0 and 1 at every evaluation, a colour for each name.

    Args:
        solid, dashed: P values by name.
        label: of the axis.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for index, (name, values_P) in enumerate(solid.items()):
            color = LINES[index % len(LINES)]
            axes.plot(steps, values_P, "o-", color=color, linewidth=1.6, markersize=3.5, label=name)
            if name in dashed:
                axes.plot(steps, dashed[name], "--", color=color, linewidth=1.4)
        lowest = min(np.nanmin(values_P) for values_P in [*solid.values(), *dashed.values()])
        axes.set(ylim=(max(0.0, min(lowest - 0.05, 0.8)), 1.02), xlabel="step", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))

    return draw_figure(draw, size=(5.2, 2.6), names=list(solid))


def _over_time(
    steps: Sequence[int],
    values: Mapping[tuple[str, str], FloatArray],
    *,
    limits: tuple[float, float],
    ticks: Mapping[float, str],
) -> str:
    """A heat map for each gate, one below the other, with a column per evaluation.

    Args:
        values: P of them by gate and row.
        limits: from white to the full colour.
        ticks: of the bar that explains the colour.
    """
    gates = list(dict.fromkeys(gate for gate, _ in values))

    def draw(figure: Figure) -> None:
        rows = {gate: [row for of_gate, row in values if of_gate == gate] for gate in gates}
        heights = [len(names) for names in rows.values()]
        for gate, axes in zip(gates, np.ravel(figure.subplots(len(gates), 1, height_ratios=heights)), strict=True):
            values_RP = np.array([values[gate, row] for row in rows[gate]])
            low, high = limits
            image = axes.imshow(values_RP, cmap="Blues", vmin=low, vmax=high, aspect="auto", interpolation="nearest")
            axes.set_yticks(range(len(rows[gate])), rows[gate], fontsize=8 if len(rows[gate]) <= FEW else 6)
            axes.set_title(gate, loc="left", fontsize=9, fontweight="bold", color=INK)
            _name_steps(axes, steps, is_shown=gate == gates[-1])
            _plain(axes)
        bar = figure.colorbar(image, ax=figure.axes, ticks=list(ticks), shrink=min(1.0, 1.6 / figure.get_figheight()))
        bar.ax.set_yticklabels(list(ticks.values()), fontsize=8)
        bar.outline.set_visible(False)

    size = (min(9.0, 3.4 + 0.2 * len(steps)), 0.8 + 0.4 * len(gates) + 0.17 * len(values))
    return draw_figure(draw, size=size, names=[name for pair in values for name in pair])


def _heat(
    axes: Axes,
    numbers_RE: FloatArray,
    colors_RE: FloatArray,
    *,
    colors: str | LinearSegmentedColormap,
    limits: tuple[float, float],
    has_diagonal: bool = True,
) -> None:
    """Cells with numbers; those that are NaN are hatched."""
    low, high = limits
    if not has_diagonal:
        colors_RE = np.where(np.eye(len(colors_RE), dtype=bool), np.nan, colors_RE)
    axes.imshow(colors_RE, cmap=colors, vmin=low, vmax=high, aspect="auto")
    num_columns = numbers_RE.shape[1]
    is_few = num_columns <= FEW
    axes.set(xlim=(-0.5, num_columns - 0.5), ylim=(numbers_RE.shape[0] - 0.5, -0.5))
    for row, expert in np.ndindex(*numbers_RE.shape) if num_columns <= MANY else ():
        number = numbers_RE[row, expert]
        if row == expert and not has_diagonal:
            continue
        if np.isnan(number):
            axes.fill_between(
                [expert - 0.5, expert + 0.5], row - 0.5, row + 0.5,
                facecolor="#f4f5f7", hatch="///", edgecolor="#d8dce2", linewidth=0,
            )  # fmt: skip
            continue
        is_dark = low == 0.0 and colors_RE[row, expert] > 0.6 * high
        text = f"{number:.2f}" if is_few else f"{number:.2f}".removeprefix("0")
        color = "white" if is_dark else INK
        axes.text(expert, row, text, ha="center", va="center", color=color, fontsize=9 if is_few else 6)


def _entropies(axes: Axes, row_R: FloatArray, total_R: FloatArray) -> None:
    """A line from the entropy of a row to that of all rows, one below the other."""
    places = np.arange(len(row_R))
    axes.hlines(places, row_R, total_R, color=GREY, linewidth=2)
    axes.plot(row_R, places, "o", color=BLUE, markersize=5, markerfacecolor="white", label="of a row")
    axes.plot(total_R, places, "o", color=BLUE, markersize=5, label="of all rows")
    axes.set(xlim=(-0.05, 1.05), xticks=[0, 0.5, 1], xlabel="entropy")
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.spines["left"].set_visible(False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, handletextpad=0.1, columnspacing=0.6)


def _name(axes: Axes, columns: Sequence[str], rows: Sequence[str]) -> None:
    """Names along both sides of a heat map."""
    is_few = len(columns) <= FEW
    slant = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if is_few else {"rotation": 90}
    step = 1 + (len(columns) - 1) // (2 * MANY)
    axes.set_xticks(range(0, len(columns), step), columns[::step], **slant)
    step = 1 + (len(rows) - 1) // (2 * MANY)
    axes.set_yticks(range(0, len(rows), step), rows[::step])
    if not is_few:
        axes.tick_params(axis="x", labelsize=7)
    _plain(axes)


def _name_steps(axes: Axes, steps: Sequence[int], *, is_shown: bool) -> None:
    """Some of the steps below a heat map whose columns they are."""
    places = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), 6)).round().astype(int))
    axes.set_xticks(places, [f"{steps[place]:,}" for place in places] if is_shown else [])
    if is_shown:
        axes.set_xlabel("step")


def _plain(axes: Axes) -> None:
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _cell(num_experts: int) -> float:
    """Width of a cell, in inches."""
    return 0.62 if num_experts <= FEW else min(0.3, WIDEST / num_experts)

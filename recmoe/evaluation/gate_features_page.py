"""The page of what moves gates: a heat map per gate, and a sentence on each."""

# F features, V experts visible to a gate

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from recmoe.evaluation.gate_features import GateFeatures
from recmoe.evaluation.plots import INK, data_uri, draw_figure

MAX_FEATURES = 15
"""Rows of a heat map; the features that move a gate least stand together in the last."""
WIDE_GAP = 0.05
"""From which the attributions of a gate are not to be trusted."""


def write_gate_features_page(found: Sequence[GateFeatures], path: Path, *, title: str) -> None:
    """Write the page; an existing file is replaced."""
    environment = Environment(
        loader=PackageLoader("recmoe.evaluation", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    text = environment.get_template("gate_features.html").render(
        title=title,
        num_rows=found[0].num_rows,
        gates=[(f"level {one.level}, gate {one.gate}", in_words(one), data_uri(features_plot(one))) for one in found],
    )
    path.write_text(text, encoding="utf-8")


def in_words(one: GateFeatures, *, num_features: int = 3) -> str:
    """What moves a gate most; and whether its attributions add up."""
    ranked = [(name, share) for name, share in one.ranked() if share > 0][:num_features]
    if not ranked:
        return "nothing moves it: it gives all rows the same"
    text = "moved most by " + ", ".join(f"{name} ({share:.0%})" for name, share in ranked)
    if one.gap > WIDE_GAP:
        text += (
            f"; the attributions miss {one.gap:.0%} of what they are to add up to: take more --steps; it stays so "
            "where sparse gates lie below, whose choices jump"
        )
    return text


def features_plot(one: GateFeatures) -> str:
    """Heat map of how far each feature moves the weight of each expert, the largest first."""
    order = np.argsort(-one.shares_F.numpy(), kind="stable")
    kept, rest = order[:MAX_FEATURES], order[MAX_FEATURES:]
    moves = one.moves_FV.numpy()
    names, rows = [one.features[feature] for feature in kept], list(moves[kept])
    if len(rest):
        names.append(f"{len(rest)} others")
        rows.append(moves[rest].sum(axis=0))
    moves_FV = np.stack(rows)
    largest = max(moves_FV.max(), np.finfo(moves_FV.dtype).tiny)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.imshow(moves_FV, cmap="Blues", vmin=0, vmax=largest, aspect="auto")
        for feature, expert in np.ndindex(*moves_FV.shape):
            moved = moves_FV[feature, expert]
            color = "white" if moved > 0.55 * largest else INK
            axes.text(expert, feature, f"{moved:.3f}", ha="center", va="center", color=color)
        axes.set_xticks(range(len(one.experts)), one.experts, rotation=30, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)

    size = (2.2 + 0.62 * len(one.experts), 0.9 + 0.3 * len(names))
    return draw_figure(draw, size=size, names=[*one.experts, *names])

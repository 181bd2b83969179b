"""expert_sections(): what gates and experts do, for a report page: pictures, what is healthy, and what else to do."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from recmoe.evaluation.expert_curves import (
    row_entropy_curve,
    shift_curve,
    similarity_curve,
    total_entropy_curve,
    usage_curve,
)
from recmoe.evaluation.expert_plots import (
    gate_plot,
    lines_over_time_plot,
    segment_plot,
    shift_over_time_plot,
    similarity_plot,
    usage_over_time_plot,
)
from recmoe.evaluation.metrics.metric import FloatArray
from recmoe.evaluation.plots import Plot, data_uri
from recmoe.moe.balance.alarms import CURES, captured_gates, dead_experts
from recmoe.moe.level_use import LevelUse
from recmoe.moe.segment_use import ALL, SegmentUse
from recmoe.moe.similarity import FEWEST_ROWS

ALIKE = 0.95
"""Similarity from which two experts are named."""
MAX_PAIRS = 5
"""Pairs of a level that are named, the most alike ones."""

Label = TypeVar("Label")
History = Mapping[int, Mapping[str, float]]
"""By step, the numbers of ``expert_curves``."""


@dataclass(frozen=True)
class ExpertSection:
    """A question about gates and experts."""

    title: str
    what: str
    """What the pictures show."""
    healthy: str
    otherwise: str
    """What to switch on where it is not."""
    found: list[str]
    """What is not healthy here."""
    plots: list[Plot]
    note: str | None = None
    """What is missing, and why."""


def expert_sections(levels: Sequence[LevelUse], history: History) -> list[ExpertSection]:
    """Use, use by segment, similarity and their history; none for a model without gates.

    Args:
        history: of the run; empty where it is not known.
    """
    if not levels:
        return []
    return [_use(levels), _by_segment(levels), _similarity(levels), *([_over_time(levels, history)] if history else [])]


def _use(levels: Sequence[LevelUse]) -> ExpertSection:
    usages = [level.usage for level in levels]
    alarms = [alarm for usage in usages for find in (dead_experts, captured_gates) for alarm in find(usage)]
    return ExpertSection(
        title="Use of experts",
        what="The mean weight that each gate gives each expert, over all rows. White is nothing, dark twice an even "
        "share or more. Hatched: the gate does not see the expert.",
        healthy="every expert gets a fair part of some gate's weight, and no gate gives nearly all of it to one.",
        otherwise=f"against experts that no gate uses, {CURES['dead']}. Against a gate that uses one expert alone, "
        f"{CURES['captured']}.",
        found=[str(alarm) for alarm in alarms],
        plots=[
            Plot(
                title=f"Level {usage.level}",
                explanation=f"mean weight over {usage.num_rows:,} rows"
                + ("; rows sum to one" if bool(((usage.usage_GE.sum(dim=1) - 1.0).abs() < 1e-3).all()) else ""),
                image=data_uri(gate_plot(usage)),
                is_wide=len(usage.experts) > 6,
            )
            for usage in usages
        ],
    )


def _by_segment(levels: Sequence[LevelUse]) -> ExpertSection:
    has_segments = any(len(level.by_segment.segments) > 1 for level in levels)
    return ExpertSection(
        title="By task and segment",
        what="What each gate gives experts; a task's gate on the rows that count for the task. Colour: more (blue) or "
        "less (orange) than over all of them. Entropy: ○ of the weights of a row, ● of the mean weights; 0 is one "
        "expert, 1 is even shares. Alike: mean similarity of the experts that the gate sees.",
        healthy="● stands near 1 and ○ clearly below it, so that rows differ in what they use; segments that differ "
        "show colour.",
        otherwise="where ○ is as high as ●, every row is mixed alike: switch on model.balance (kind entropy), lower "
        "model.architecture.gate.temperature where the gate has one, or take fewer experts. Where ● is low, "
        f"{CURES['captured']}.",
        found=[],
        plots=[_segment_plot(level, gate) for level in levels for gate in _choosing(level.by_segment)],
        note=None if has_segments else "No segments: name columns in evaluation.slices, such as [device].",
    )


def _segment_plot(level: LevelUse, gate: str) -> Plot:
    use = level.by_segment
    place = use.gates.index(gate)
    if not use.num_rows_SG[:, place].any():
        return Plot(f"Level {use.level}, gate {gate}", "no row counts for it", None, "no rows")
    seen = _seen(use, gate)
    similarity = {segment: level.similarity.mean(segment, seen) for segment in use.segments}
    return Plot(
        title=f"Level {use.level}, gate {gate}",
        explanation="mean weight over the rows of each segment",
        image=data_uri(segment_plot(use, gate, similarity)),
    )


def _similarity(levels: Sequence[LevelUse]) -> ExpertSection:
    return ExpertSection(
        title="Similarity of experts",
        what="Linear CKA of the outputs of every two experts (Kornblith et al. 2019): 1 where they give the same but "
        "for a rotation, 0 where they have nothing in common. Hatched: the expert gives the same in every row.",
        healthy=f"pairs stay below about {ALIKE}; two experts above it do one expert's work.",
        otherwise=f"{CURES['collapsed']}; or take fewer experts.",
        found=[text for level in levels if (text := _alike(level))],
        plots=[_similarity_plot(level) for level in levels],
    )


def _similarity_plot(level: LevelUse) -> Plot:
    similarity, name = level.similarity, f"Level {level.usage.level}"
    cka_EE = similarity.cka(ALL)
    if len(similarity.experts) < 2:
        return Plot(name, "not compared", None, "no outputs of two experts to compare")
    num_rows = similarity.num_rows.get(ALL, 0)
    if cka_EE is None:
        return Plot(name, "not compared", None, f"{num_rows} rows, of which {FEWEST_ROWS} are needed")
    image = data_uri(similarity_plot(similarity.experts, cka_EE.numpy()))
    num, num_all = len(similarity.experts), len(level.usage.experts)
    which = "" if num == num_all else f" of {num} of {num_all} experts"
    return Plot(name, f"linear CKA{which} over {num_rows:,} rows", image, is_wide=num > 12)


def _alike(level: LevelUse) -> str | None:
    """The pairs of experts that are most alike, in words."""
    cka_EE = level.similarity.cka(ALL)
    if cka_EE is None:
        return None
    names = level.similarity.experts
    pairs = torch.combinations(torch.arange(len(names))).tolist()
    found = [(float(cka_EE[one, two]), f"{names[one]} and {names[two]}") for one, two in pairs]
    alike = sorted((pair for pair in found if pair[0] >= ALIKE), reverse=True)
    if not alike:
        return None
    texts = [f"{pair} ({value:.2f})" for value, pair in alike[:MAX_PAIRS]]
    more = f", and {len(alike) - MAX_PAIRS} more pairs" if len(alike) > MAX_PAIRS else ""
    return f"level {level.usage.level}: alike are {', '.join(texts)}{more}"


def _over_time(levels: Sequence[LevelUse], history: History) -> ExpertSection:
    steps = sorted(history)
    plots: list[Plot] = []
    if len(steps) > 1:
        plots = [plot for level in levels for plot in _level_over_time(level.by_segment, history)]
        alike = _curves(
            {f"level {level.usage.level}": similarity_curve(level.usage.level) for level in levels}, history
        )
        if alike:
            image = data_uri(lines_over_time_plot(steps, alike, {}, label="similarity"))
            plots.append(Plot("Similarity", "mean over all pairs of a level's experts", image))
    return ExpertSection(
        title="Over time",
        what="The same on the validation split, at every evaluation of the run.",
        healthy="shades settle and none fades to white; the entropy of a row (—) comes down while that of all rows "
        "(- -) stays up; similarity, which often rises at first, falls as experts find work of their own.",
        otherwise="act early: an expert that gets no rows learns nothing and seldom comes back. "
        f"{CURES['dead'][0].upper()}{CURES['dead'][1:]}.",
        found=[],
        plots=plots,
        note=None if plots else "One evaluation is no course: set training.evaluate_every, in steps.",
    )


def _level_over_time(use: SegmentUse, history: History) -> Iterator[Plot]:
    """Usage and entropies of the gates of a level, and what differs by segment."""
    steps = sorted(history)
    gates = _choosing(use)
    pairs = [(gate, expert) for gate in gates for expert in _seen(use, gate)]
    usage = _curves({(gate, expert): usage_curve(use.level, gate, expert) for gate, expert in pairs}, history)
    if usage:
        image = data_uri(usage_over_time_plot(steps, usage))
        yield Plot(f"Level {use.level}: use", "what each gate (bold) gives its experts, in even shares", image)
    rows, totals = (
        _curves({gate: curve(use.level, gate) for gate in gates}, history)
        for curve in (row_entropy_curve, total_entropy_curve)
    )
    if rows:
        image = data_uri(lines_over_time_plot(steps, rows, totals, label="entropy"))
        yield Plot(f"Level {use.level}: entropy", "— of a row, - - of all rows together", image)
    pairs = [(gate, segment) for gate in gates for segment in use.segments if segment != ALL]
    shift = _curves({(gate, segment): shift_curve(use.level, gate, segment) for gate, segment in pairs}, history)
    if shift:
        image = data_uri(shift_over_time_plot(steps, shift))
        yield Plot(
            f"Level {use.level}: segments", "part of a gate's weight that goes elsewhere than over all rows", image
        )


def _curves(names: Mapping[Label, str], history: History) -> dict[Label, FloatArray]:
    """P values per curve, NaN where there is none; curves that have no value at all are left out."""
    found = {
        label: np.array([history[step].get(name, np.nan) for step in sorted(history)]) for label, name in names.items()
    }
    return {label: values_P for label, values_P in found.items() if np.isfinite(values_P).any()}


def _choosing(use: SegmentUse) -> list[str]:
    """Gates that see several experts."""
    return [gate for gate, num in zip(use.gates, use.visible_GE.sum(dim=1).tolist(), strict=True) if num > 1]


def _seen(use: SegmentUse, gate: str) -> list[str]:
    seen_E = use.visible_GE[use.gates.index(gate)].tolist()
    return [expert for expert, is_seen in zip(use.experts, seen_E, strict=True) if is_seen]

"""expert_curves(): the use and the similarity of experts as numbers by name, for curves, reports and MLflow."""

import math
from collections.abc import Iterator, Sequence

from recmoe.moe.level_use import LevelUse
from recmoe.moe.segment_use import ALL
from recmoe.moe.similarity import MAX_EXPERTS

PREFIX = "experts"
MAX_SEGMENT = 100
"""Letters of a segment in the name of a curve."""


def expert_curves(levels: Sequence[LevelUse]) -> dict[str, float]:
    """What is known of every level, by the names that the functions below give.

    Per gate that has a choice: both entropies, and the usage of each expert, of ``MAX_EXPERTS`` at most. Per segment,
    and not per expert, so that there are not too many: both entropies, the shift of usage away from that over all rows,
    and the similarity of the experts that the gate sees. Per level: the similarity of its experts. What is not defined
    is left out.
    """
    found = dict(_numbers(levels))
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


def usage_curve(level: int, gate: str, expert: str) -> str:
    """Name of the mean weight that a gate gives an expert."""
    return f"{PREFIX}/level{level}/{gate}/usage/{expert}"


def row_entropy_curve(level: int, gate: str, segment: str = ALL) -> str:
    """Name of the mean entropy of a row's weights."""
    return f"{_of_segment(level, gate, segment)}/row_entropy"


def total_entropy_curve(level: int, gate: str, segment: str = ALL) -> str:
    """Name of the entropy of the mean weights."""
    return f"{_of_segment(level, gate, segment)}/total_entropy"


def shift_curve(level: int, gate: str, segment: str) -> str:
    """Name of how much of the weights goes elsewhere in a segment than over all rows."""
    return f"{_of_segment(level, gate, segment)}/shift"


def similarity_curve(level: int) -> str:
    """Name of the mean similarity of the experts of a level."""
    return f"{PREFIX}/level{level}/similarity"


def _numbers(levels: Sequence[LevelUse]) -> Iterator[tuple[str, float | None]]:
    for whole in levels:
        use = whole.by_segment
        yield similarity_curve(use.level), whole.similarity.mean(ALL)
        for gate_index, gate in enumerate(use.gates):
            seen = [
                name for name, is_seen in zip(use.experts, use.visible_GE[gate_index].tolist(), strict=True) if is_seen
            ]
            if len(seen) < 2:
                continue
            if len(use.experts) <= MAX_EXPERTS:
                usage = dict(zip(use.experts, use.usage_SGE[use.segments.index(ALL), gate_index].tolist(), strict=True))
                yield from ((usage_curve(use.level, gate, expert), usage[expert]) for expert in seen)
            for place, segment in enumerate(use.segments):
                yield row_entropy_curve(use.level, gate, segment), float(use.row_entropy_SG[place, gate_index])
                yield total_entropy_curve(use.level, gate, segment), float(use.total_entropy_SG[place, gate_index])
                if segment != ALL:
                    yield shift_curve(use.level, gate, segment), float(use.shift_SG[place, gate_index])
                    name = f"{_of_segment(use.level, gate, segment)}/similarity"
                    yield name, whole.similarity.mean(segment, seen)


def _of_segment(level: int, gate: str, segment: str) -> str:
    # A stroke in a value would look like a folder of curves, and MLflow's names have an end.
    rest = "" if segment == ALL else "/" + segment.replace("/", "_")[:MAX_SEGMENT]
    return f"{PREFIX}/level{level}/{gate}{rest}"

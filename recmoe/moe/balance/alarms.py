"""RoutingWatch: looks on while a model trains, and names experts that are dead, captured, collapsed or not finite."""

# N rows that are probed, G gates, E experts, H expert width

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from recmoe.moe.balance.statistics import SMALLEST_SHARE, relative, visible
from recmoe.moe.balance.usage import ExpertUsage
from recmoe.moe.gate_use import GateUse
from recmoe.workers import mean_over_workers

PROBE_EVERY = 10
"""Steps between two probes of what the experts give."""
PROBE_ROWS = 64
PATIENCE = 3
"""Looks in a row that find the same before it is an alarm; a step may be unlucky."""
DEAD = 0.05
"""An expert is dead where every gate that sees it gives it less than this part of an even share."""
CAPTURED = 0.95
"""A gate is captured where one of several experts gets more than this share."""
SAME = 0.01
"""Two experts are the same where their outputs differ by less than this part of their length."""

AlarmKind = Literal["dead", "captured", "collapsed", "not finite"]
CURES: dict[AlarmKind, str] = {
    "dead": "switch on model.balance (kind importance or switch; bias or load for gates that have them), or raise its "
    "weight; or take fewer experts; in a trunk (below level 0), lower model.trunk.sparsity, or raise active or balance",
    "captured": "raise model.architecture.gate.temperature where the gate has one, or switch on model.balance (kind "
    "importance, entropy or mutual_information); in a trunk, raise model.trunk.active or balance",
    "collapsed": "switch on model.balance (kind diversity), raise model.architecture.dropout, or take experts of "
    "several kinds (model.architecture.expert: a list)",
    "not finite": "lower training.dense_optimizer.lr, set training.clip_norm, or switch on model.balance (kind z_loss)",
}
"""What to do against each."""


class Alarm(NamedTuple):
    """Something that is wrong with the routing of a model."""

    kind: AlarmKind
    where: str
    """Level, gate and experts, by name."""
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class RoutingWatch:
    """Sees every training step; says on demand what was wrong since it was last asked.

    It costs two small sums a step, and every tenth step the experts on a few rows. It changes nothing: neither
    gradients nor the state of random generators.
    """

    def __init__(self) -> None:
        self._levels: list[_Level] = []
        self._num_seen = 0
        self._streaks: dict[tuple[str, str], int] = {}

    @torch.no_grad()
    def see(self, uses: Sequence[GateUse]) -> None:
        """Take in the use of the gates in a step."""
        if not self._levels:
            self._levels = [_Level(use) for use in uses]
        self._num_seen += 1
        for level, use in zip(self._levels, uses, strict=True):
            level.see(use, must_probe=self._num_seen % PROBE_EVERY == 0)

    def alarms(self) -> list[Alarm]:
        """What is wrong, over the rows of all workers; collective. What is not finite is said at once."""
        found = [alarm for level in self._levels for alarm in level.alarms()]
        self._levels = []
        self._streaks = {alarm[:2]: self._streaks.get(alarm[:2], 0) + 1 for alarm in found}
        return [alarm for alarm in found if alarm.kind == "not finite" or self._streaks[alarm[:2]] >= PATIENCE]


class _Level:
    """What was seen of a level since the last look.

    Args:
        use: of the first step.
    """

    def __init__(self, use: GateUse) -> None:
        self.level, self.gates, self.experts = use.level, use.gates, use.experts
        self.visible_GE = visible(use)
        self.weights_GE = torch.zeros_like(self.visible_GE, dtype=torch.float32)
        self.num_finite_G = torch.zeros_like(self.weights_GE[:, 0])
        self.num_steps = 0
        self.probed: Mapping[str, Tensor] = {}

    def see(self, use: GateUse, *, must_probe: bool) -> None:
        """Take in a step."""
        mean_GE = use.weights_BGE.mean(dim=0)
        self.weights_GE += mean_GE
        self.num_finite_G += mean_GE.isfinite().all(dim=1)
        self.num_steps += 1
        if must_probe and use.outputs is not None:
            self.probed = use.outputs(min(PROBE_ROWS, len(use.weights_BGE)))

    def alarms(self) -> Iterator[Alarm]:
        """What is wrong with it; collective."""
        num_finite_G, weights_GE = (mean_over_workers(seen) for seen in (self.num_finite_G, self.weights_GE))
        usage = ExpertUsage(
            level=self.level,
            gates=self.gates,
            experts=self.experts,
            usage_GE=(weights_GE / self.num_steps).double().cpu(),
            visible_GE=self.visible_GE.cpu(),
            num_rows=self.num_steps,
        )
        yield from self._not_finite(num_finite_G.tolist())
        yield from dead_experts(usage)
        yield from captured_gates(usage)
        yield from same_experts(self.level, self.probed)

    def _not_finite(self, num_finite: Sequence[float]) -> Iterator[Alarm]:
        """Where it began: what is not finite in one step makes everything so in the next."""
        if min(num_finite) < self.num_steps:
            names = [gate for gate, num in zip(self.gates, num_finite, strict=True) if num == min(num_finite)]
            where = f"level {self.level}, gate {' and '.join(names)}"
            yield Alarm("not finite", where, "the weights of experts are not finite")
        broken = [name for name, y_NH in self.probed.items() if not y_NH.isfinite().all()]
        if broken:
            where = f"level {self.level}, expert {' and '.join(broken)}"
            yield Alarm("not finite", where, "the output is not finite")


def dead_experts(usage: ExpertUsage, *, threshold: float = DEAD) -> Iterator[Alarm]:
    """Experts that no gate uses.

    Args:
        threshold: an expert is dead where every gate that sees it gives it less than this part of an even share:
            the mean over the experts that the gate sees.
    """
    best_E = relative(usage.usage_GE, usage.visible_GE, sums_to_one=False).amax(dim=0)
    for expert, best, is_seen_G in zip(usage.experts, best_E.tolist(), usage.visible_GE.t().tolist(), strict=True):
        if best < threshold and any(is_seen_G):
            gates = [gate for gate, is_seen in zip(usage.gates, is_seen_G, strict=True) if is_seen]
            where = f"level {usage.level}, expert {expert}"
            yield Alarm("dead", where, f"gate {' and '.join(gates)} gives it {best:.1%} of an even share at most")


def captured_gates(usage: ExpertUsage, *, threshold: float = CAPTURED) -> Iterator[Alarm]:
    """Gates that give nearly everything to one of several experts.

    Args:
        threshold: the share of that expert.
    """
    total_G1 = usage.usage_GE.sum(dim=1, keepdim=True).clamp(min=SMALLEST_SHARE)
    best_G, expert_G = (usage.usage_GE / total_G1).max(dim=1)
    num_visible_G = usage.visible_GE.sum(dim=1).tolist()
    for gate, best, expert, num_visible in zip(
        usage.gates, best_G.tolist(), expert_G.tolist(), num_visible_G, strict=True
    ):
        if num_visible > 1 and best > threshold:
            where = f"level {usage.level}, gate {gate}"
            yield Alarm("captured", where, f"expert {usage.experts[expert]} gets {best:.1%} of all weight")


def same_experts(level: int, outputs: Mapping[str, Tensor], *, threshold: float = SAME) -> Iterator[Alarm]:
    """Groups of experts that give the same on some rows.

    Args:
        outputs: y_NH by expert.
        threshold: of the distance of two outputs, as a part of their length.
    """
    left = {name: y_NH.float() for name, y_NH in outputs.items() if y_NH.isfinite().all()}
    while left:
        name = next(iter(left))
        y_NH = left.pop(name)
        alike = [other for other, z_NH in left.items() if _is_same(y_NH, z_NH, threshold)]
        if alike:
            where = f"level {level}, experts {' and '.join([name, *alike])}"
            yield Alarm("collapsed", where, f"they give the same to within {threshold:.0%} of it")
        for other in alike:
            del left[other]


def _is_same(y_NH: Tensor, z_NH: Tensor, threshold: float) -> bool:
    squares = y_NH.square().sum() + z_NH.square().sum()
    return bool((y_NH - z_NH).square().sum() <= threshold**2 * squares / 2)

"""pruned_into(): a mixture without its least used experts; gates share out among those that stay.

The weights of a gate over the experts that stay are those it gave them before, divided by their sum: of a softmax over
fewer logits nothing else can come. A sparse gate chooses its k best among them.
"""

# G gates, E experts

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from recmoe.axes import Described, Labels, describe, of_all_experts
from recmoe.errors import TrainingError
from recmoe.model import MultiTaskRanker
from recmoe.moe.balance import ExpertUsage
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.experts.mixed import MixedExperts
from recmoe.moe.gates.gate import Gate


class Cut(NamedTuple):
    """One layer of experts, before and after."""

    level: int
    experts: Mapping[str, str]
    """By name of an expert that stays, as the new model counts: its name in the old one."""
    dropped: Mapping[str, float]
    """By name in the old model: the share of the weights of all gates that the expert had."""


def cuts_of(ranker: MultiTaskRanker, usages: Sequence[ExpertUsage], *, keep: int) -> dict[str, Cut]:
    """Which experts stay, by the path of their layer in the model: of each owner the ``keep`` that gates use most.

    Args:
        usages: of the layers, over rows of a log.
        keep: experts of a task, or shared ones, that stay in a layer; all of an owner that has no more.

    Raises:
        TrainingError: the model has no experts to choose from, an owner's are of several kinds, or a gate numbers
            its experts.
    """
    layers = {name: module for name, module in ranker.model.named_modules() if isinstance(module, ExpertLayer)}
    # A trunk has networks of its own, which stay.
    by_level = {usage.level: usage for usage in usages if usage.level >= 0}
    if not layers or set(by_level) != {layer.level for layer in layers.values()} or len(by_level) != len(layers):
        raise TrainingError("the model has no gates that choose among experts; there is nothing to prune")
    if any(isinstance(layer.experts, MixedExperts) for layer in layers.values()):
        raise TrainingError(
            "the experts of the model are of several kinds, which their places decide; it cannot be pruned"
        )
    if not all(_has_weights_by_expert(gate) for layer in layers.values() for gate in layer.gates):
        raise TrainingError(
            "a gate of the model numbers its experts, so that with fewer of them rows would have others; "
            "it cannot be pruned"
        )
    return {path: _cut(by_level[layer.level], keep) for path, layer in layers.items()}


def counts_of(cuts: Mapping[str, Cut]) -> dict[str, int]:
    """Experts that stay per layer, by owner; as many in every layer, as before."""
    counts: dict[str, int] = {}
    for cut in cuts.values():
        for name in cut.experts:
            owner, _, place = name.rpartition(".")
            counts[owner] = max(counts.get(owner, 0), int(place) + 1)
    return counts


@torch.no_grad()
def pruned_into(
    new: MultiTaskRanker, old: MultiTaskRanker, cuts: Mapping[str, Cut], *, state: Mapping[str, Tensor] | None = None
) -> None:
    """Fill a model of fewer experts with the weights of those that stay; all else goes over as it is.

    Args:
        cuts: by path of a layer, which is the same in both.
        state: weights of the old model to take in place of its own, such as those of merged experts.
    """
    state = old.state_dict() if state is None else state
    prefix = "model."
    known = {one.name: (prefix + name, one) for name, one in describe(old.model).items()}
    values = {name: weight for name, weight in state.items() if not name.startswith(prefix)}
    for name, described in describe(new.model).items():
        cut = next((cut for path, cut in cuts.items() if name.startswith(f"{path}.")), None)
        before = described if cut is None else _as_before(described, cut.experts)
        stored_name, stored = known[before.name]
        values[prefix + name] = _selected(state[stored_name], stored.axes, before.axes)
    new.load_state_dict(values)


def _has_weights_by_expert(gate: nn.Module) -> bool:
    axes = chain.from_iterable(cast(Gate, gate).weight_axes().values())
    return any(labels is not None and labels != of_all_experts(len(labels)) for labels in axes)


def _cut(usage: ExpertUsage, keep: int) -> Cut:
    used_E = usage.usage_GE.sum(dim=0) / usage.usage_GE.sum()
    used = dict(zip(usage.experts, used_E.tolist(), strict=True))
    owners: dict[str, list[str]] = {}
    for name in usage.experts:
        owners.setdefault(name.rpartition(".")[0], []).append(name)
    stays: dict[str, str] = {}
    for owner, names in owners.items():
        best = sorted(names, key=lambda name: -used[name])[:keep]
        stays |= {f"{owner}.{place}": name for place, name in enumerate(name for name in names if name in best)}
    return Cut(usage.level, stays, {name: used[name] for name in usage.experts if name not in stays.values()})


def _as_before(described: Described, experts: Mapping[str, str]) -> Described:
    """A weight of the new model under the names that its experts have in the old one."""
    name = re.sub(r"\[([^\]]+)\]", lambda found: f"[{experts.get(found[1], found[1])}]", described.name)
    axes = tuple(None if axis is None else tuple(_renamed(label, experts) for label in axis) for axis in described.axes)
    return Described(name, axes)


def _renamed(label: object, experts: Mapping[str, str]) -> str | object:
    return experts.get(label, label) if isinstance(label, str) else label


def _selected(weight: Tensor, stored: Sequence[Labels | None], wanted: Sequence[Labels | None]) -> Tensor:
    for axis, (has, asks) in enumerate(zip(stored, wanted, strict=True)):
        if has is not None and asks is not None and has != asks:
            weight = weight.index_select(axis, torch.tensor([has.index(label) for label in asks]))
    return weight.clone()

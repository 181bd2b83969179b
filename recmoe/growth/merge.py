"""merged(): the weights of a mixture in which the experts that stay hold the mean of those that go, by use.

M-SMoE: Li et al., ICLR 2024, https://arxiv.org/abs/2310.01334, section 3.1: hidden units are permuted into one order
first, every other expert joins the most like of those that are used most, and each group becomes its mean, weighted by
use. The paper compares experts by the logits of its one router per layer; gates of several tasks, each of which sees
others, have no such logits in common, and so experts are compared by what is averaged: their weights, once permuted.
In the paper a router keeps an output for every expert of before. Here gates shrink with the experts: the row of a group
is the mean of its rows, by that gate's own use of them.

Permutation: Ainsworth et al., ICLR 2023, https://arxiv.org/abs/2209.04836, algorithm 1 (matching of weights).
"""

# E experts, D input width of a layer, O its width, I weights around a hidden unit

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recmoe.axes import Labels, describe
from recmoe.errors import TrainingError
from recmoe.growth.prune import Cut
from recmoe.model import MultiTaskRanker
from recmoe.moe.balance import ExpertUsage
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.experts import MlpExperts

Weights = list[Tensor]
"""Of one expert, layer by layer: weight_OI, which holds its bias as the last column."""
LEAST = 1e-12
"""A use of 0 counts as this: experts that no gate uses become their plain mean."""


class Merged(NamedTuple):
    """What became of the experts that do not stay."""

    state: dict[str, Tensor]
    """Of the old model, in which every expert that stays is the mean of its group."""
    joined: Mapping[str, Mapping[str, str]]
    """By path of a layer: by expert that goes, the one that it joined; both as the old model names them."""


@torch.no_grad()
def merged(ranker: MultiTaskRanker, usages: Sequence[ExpertUsage], cuts: Mapping[str, Cut]) -> Merged:
    """Merge the experts that go into those that stay, owner by owner.

    Args:
        usages: of the layers, over rows of a log.
        cuts: by path of a layer.

    Raises:
        TrainingError: experts are no MLPs, whose hidden units could be permuted.
    """
    state = {name: weight.clone() for name, weight in ranker.state_dict().items()}
    by_level = {usage.level: usage for usage in usages}
    joined = {}
    for path, cut in cuts.items():
        layer = ranker.model.get_submodule(path)
        assert isinstance(layer, ExpertLayer), "a cut is of a layer of experts"
        if not isinstance(layer.experts, MlpExperts):
            raise TrainingError(
                f"the experts of level {cut.level} are no mlp, and only those can be merged: the hidden units of two "
                "experts must be put into one order first; prune without --merge"
            )
        joined[path] = _join(layer.experts, cut, state, f"model.{path}.experts.")
        _average(ranker, by_level[cut.level], path, joined[path], state)
    return Merged(state, joined)


def aligned(weights: Weights, like: Weights) -> Weights:
    """A network that computes the same, with its hidden units in the order in which they are most like another's.

    At first the units of each layer are matched by what goes into them, from the first layer to the last. Then layer by
    layer the order is the best one (a linear assignment) while those around it stay; until none changes. The last layer
    keeps its order: others read it.
    """
    found = list(weights)
    for layer in range(len(found) - 1):
        found = _in_order(found, layer, _best_order(like[layer], found[layer]))
    changes = True
    while changes:
        changes = False
        for layer in range(len(found) - 1):
            mine, theirs = _around(found, layer), _around(like, layer)
            order_O = _best_order(theirs, mine)
            # Units that are alike could change places without end: only a better order counts.
            if (theirs * mine[order_O]).sum() > (theirs * mine).sum() * (1 + 1e-6) + 1e-6:
                found = _in_order(found, layer, order_O)
                changes = True
    return found


def _best_order(theirs_OI: Tensor, mine_OI: Tensor) -> Tensor:
    """Which of my units is to stand at the place of each of theirs, so that products of the pairs sum to the most."""
    likeness_OO = theirs_OI.double() @ mine_OI.double().T
    return torch.from_numpy(assignment()(likeness_OO.numpy(), maximize=True)[1])


def _in_order(weights: Weights, layer: int, order_O: Tensor) -> Weights:
    """The same network with the units of a layer in another order; a bias stays the last column."""
    found = list(weights)
    found[layer] = found[layer][order_O]
    after_OI = found[layer + 1]
    found[layer + 1] = torch.cat([after_OI[:, :-1][:, order_O], after_OI[:, -1:]], dim=1)
    return found


def assignment() -> Callable[..., Any]:
    """scipy's solver of linear assignments: cost [N, N] → the columns of rows 0 to N - 1, as its second result.

    Raises:
        TrainingError: scipy is not installed.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise TrainingError(
            f"putting units into groups or orders needs scipy ({error}): pip install 'recmoe[balancing]'"
        ) from error
    found: Callable[..., Any] = linear_sum_assignment
    return found


def _around(weights: Weights, layer: int) -> Tensor:
    """By unit of a layer: all that goes into it and comes out of it, [O, I]."""
    return torch.cat([weights[layer], weights[layer + 1][:, :-1].T], dim=1)


def _join(experts: MlpExperts, cut: Cut, state: dict[str, Tensor], prefix: str) -> dict[str, str]:
    """By expert that goes, the most like of its owner that stays; its units go into the order of that one's."""
    stay = list(cut.experts.values())
    layers = range(len(experts.weights_EOD))
    joined = {}
    for name in cut.dropped:
        place = experts.names.index(name)
        mine = _weights_of(experts, place)
        owner = name.rpartition(".")[0]
        others = [other for other in stay if other.rpartition(".")[0] == owner]
        candidates = [_weights_of(experts, experts.names.index(other)) for other in others]
        fitted = [aligned(mine, other) for other in candidates]
        distances = [_distance(one, other) for one, other in zip(fitted, candidates, strict=True)]
        best = distances.index(min(distances))
        joined[name] = others[best]
        for layer in layers:
            state[f"{prefix}weights_EOD.{layer}"][place] = fitted[best][layer][:, :-1]
            state[f"{prefix}biases_EO.{layer}"][place] = fitted[best][layer][:, -1]
    return joined


def _weights_of(experts: MlpExperts, place: int) -> Weights:
    layers = zip(experts.weights_EOD, experts.biases_EO, strict=True)
    return [torch.cat([weight_EOD[place], bias_EO[place].unsqueeze(1)], dim=1) for weight_EOD, bias_EO in layers]


def _distance(one: Weights, other: Weights) -> float:
    return sum(float((mine - theirs).square().sum()) for mine, theirs in zip(one, other, strict=True))


def _average(
    ranker: MultiTaskRanker, usage: ExpertUsage, path: str, joined: Mapping[str, str], state: dict[str, Tensor]
) -> None:
    """Every weight of a layer that has experts along an axis: at an expert that stays, the mean of its group."""
    layer = ranker.model.get_submodule(path)
    assert isinstance(layer, ExpertLayer)
    used = {name: dict(zip(usage.experts, row.tolist(), strict=True)) for name, row in _uses(usage).items()}
    for name, described in describe(layer).items():
        shares = used[""]
        if name.startswith("gates."):
            shares = used[layer.gate_names[int(name.split(".")[1])]]
        stored = f"model.{path}.{name}"
        for axis, labels in enumerate(described.axes):
            if labels is not None:
                state[stored] = _means(state[stored], axis, labels, joined, shares)


def _uses(usage: ExpertUsage) -> dict[str, Tensor]:
    """By gate, how much it uses each expert; all of them together under no name."""
    return {"": usage.usage_GE.sum(dim=0), **dict(zip(usage.gates, usage.usage_GE, strict=True))}


def _means(weight: Tensor, axis: int, labels: Labels, joined: Mapping[str, str], shares: Mapping[str, float]) -> Tensor:
    found = weight.clone()
    for stays in dict.fromkeys(joined.values()):
        group = [name for name in labels if name == stays or joined.get(str(name)) == stays]
        if not group:
            continue
        used = torch.tensor([max(shares[str(name)], LEAST) for name in group], dtype=torch.float64)
        at = torch.tensor([labels.index(name) for name in group])
        along = (used / used.sum()).view([-1 if other == axis else 1 for other in range(weight.dim())])
        mean = (weight.index_select(axis, at).double() * along).sum(dim=axis)
        found.select(axis, labels.index(stays)).copy_(mean)
    return found

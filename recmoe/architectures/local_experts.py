"""Local experts: each predicts by itself, and the likelihood of a row is the mixture of theirs, so that they compete.

Adaptive mixtures of local experts: Jacobs, Jordan, Nowlan & Hinton, Neural Computation 1991,
https://doi.org/10.1162/neco.1991.3.1.79, equation 1.3, read as it is quoted elsewhere.
"""

# B rows, T' towers, E experts, D input width, H expert width, K logits of a task, Z logits of all

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal, Self, cast

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from recmoe.architectures.mmoe import MMoE
from recmoe.architectures.seam import ArchitectureKind, Inputs, LevelFlow, Outputs, Parts, Targets
from recmoe.architectures.towers import TowerModel, with_towers
from recmoe.balancing.fork import Fork
from recmoe.errors import ConfigError
from recmoe.moe.executors import copies_by_gate, dispatched
from recmoe.moe.experts.stack import ExpertStack
from recmoe.moe.gates.gate import Gate
from recmoe.moe.mixture import MixtureConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.mixing import Experts, Mixing


class LocalExpertsConfig(MixtureConfig, ArchitectureKind):
    """Experts shared by all tasks, each of which predicts every task by itself; one gate per task mixes predictions."""

    can_fork: ClassVar[bool] = True
    kind: Literal["local_experts"] = "local_experts"
    num_experts: PositiveInt = 8
    """Experts that all tasks share."""
    spread: PositiveFloat = 1.0
    """Of regressions: how far a value lies from what its expert predicts, in standard deviations of the label. The
    smaller, the more a row belongs to the one expert that predicts it best; very large, all learn from every row."""

    def assemble(self, parts: Parts) -> nn.Module:
        """The experts, their gates and the towers.

        Raises:
            ConfigError: gates whose weights are no probabilities.
        """
        mmoe = MMoE(
            in_features=parts.in_features,
            task_names=parts.tasks.tower_names,
            num_experts=self.num_experts,
            make_layer=self.layer,
        )
        if not all(cast(Gate, gate).sums_to_one for gate in mmoe.layer.gates):
            raise ConfigError(
                f"model.architecture.gate: the weights of {self.gate.kind} gates need not sum to one, and so are no "
                "probabilities of experts; choose others, such as gate: {kind: softmax}"
            )
        return LocalExperts(inner=with_towers(mmoe, parts), tasks=parts.tasks, spread=self.spread)

    def task_problems(self, tasks: TaskSet, groups: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Tasks whose likelihoods cannot be mixed, and settings that mix what is not predicted yet."""
        yield from super().task_problems(tasks, groups)
        for name in tasks.tower_names:
            if tasks.mixing(name) is None:
                yield (
                    "kind",
                    f"experts cannot compete for {name}, only for binary, classes and regression tasks; choose another "
                    "kind for it, or another architecture, such as mmoe",
                )
        if self.mixes == "weights":
            yield "mixes", "merged experts predict nothing by themselves; drop it, or choose kind: mmoe"
        if self.unchosen is not None:
            yield "unchosen", "every expert predicts by itself, with nothing of those unchosen; drop it"

    def keeping(self, counts: Mapping[str, int]) -> Self:
        """With fewer experts; see ``ArchitectureKind``."""
        return self.model_copy(update={"num_experts": counts["shared"]})

    def flow(self, task_names: Sequence[str]) -> Sequence[LevelFlow]:
        """Every task moves what all share."""
        return [LevelFlow({task: {"shared"} for task in task_names})]


class LocalExperts(nn.Module):
    """MMoE whose gates mix predictions, and likelihoods, in place of representations; see ``Model``::

        z_te = tower_t(f_e(x))                        what expert e predicts of task t
        prediction_t = Σ_e g_t(x)_e · prediction(z_te)
        loss_t = −log Σ_e g_t(x)_e · exp(−loss(z_te))         of a row, in nats

    So the gradient of an expert is that of its own loss, times the share that it has in the likelihood of the row. In
    MMoE an expert learns what is left over by the others. The loss of a binary task is the cross-entropy of its
    prediction; that of a regression, in units of the variance 2 · spread², is not the squared error of its own.

    A product of tasks multiplies their predictions, and has the loss that it always has.

    Args:
        inner: an MMoE with a tower for every task.
        tasks: that can be mixed.
        spread: of regressions; see the config.
    """

    replaces: frozenset[str] = frozenset()

    def __init__(self, *, inner: TowerModel, tasks: TaskSet, spread: float) -> None:
        super().__init__()
        self.inner = inner
        self.loss_weights = inner.loss_weights
        self.spread = spread
        self._mixings = [cast(Mixing, tasks.mixing(name)) for name in tasks.tower_names]

    def forward(self, inputs: Inputs) -> Outputs:
        """The logits of some rows, and what every expert predicts."""
        layer = cast(MMoE, self.inner.architecture).layer
        experts = cast(ExpertStack, layer.experts)
        shares, use = layer.route([inputs.x], inputs.groups)
        if layer.is_sparse:
            # As if each expert had a gate of its own: zero in the rows that chose others.
            is_chosen_BE = (use.weights_BGE != 0).any(dim=1)
            y = dispatched(experts, [inputs.x], weights_BGE=torch.diag_embed(is_chosen_BE.float()))
            predict = _of_chosen
        else:
            y, predict = experts([inputs.x]), _of_all
        copies = [y] * len(shares)
        if layer.fork is not None and torch.is_grad_enabled():
            copies = copies_by_gate(y, seen=layer.seen, fork=layer.fork)
        mixture = {
            name: predict(tower, torch.stack(read), p_BE.T, self.spread)
            for name, tower, read, p_BE in zip(self.inner.task_names, self.inner.towers, copies, shares, strict=True)
        }
        joined = [mixing.join(one) for mixing, one in zip(self._mixings, mixture.values(), strict=True)]
        return Outputs(torch.cat(joined, dim=1), [use], mixture=mixture)

    def begin_at_zero(self) -> None:
        """Make every logit 0; see ``Model``."""
        self.inner.begin_at_zero()

    def fork_shared(self, fork: Fork) -> None:
        """Let the towers read copies of the experts; see ``Forkable``."""
        self.inner.fork_shared(fork)

    def losses(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """Those of gates that learn by their own; else none."""
        return self.inner.losses(outputs, targets)


def _of_all(tower: nn.Module, y_EBH: Tensor, shares_EB: Tensor, spread: float) -> Experts:
    logits_NK: Tensor = tower(y_EBH.flatten(0, 1)).float()
    return Experts(logits_NK.view(*shares_EB.shape, logits_NK.shape[1]), shares_EB, spread)


def _of_chosen(tower: nn.Module, y_EBH: Tensor, shares_EB: Tensor, spread: float) -> Experts:
    """With logits of 0 where a row did not choose an expert, of which the gate hears nothing."""
    place_N = shares_EB.nonzero(as_tuple=True)
    logits_NK: Tensor = tower(y_EBH[place_N]).float()
    logits_EBK = logits_NK.new_zeros(*shares_EB.shape, logits_NK.shape[1]).index_put(place_N, logits_NK)
    return Experts(logits_EBK, shares_EB.masked_fill(shares_EB == 0, 0.0), spread)

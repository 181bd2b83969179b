"""ExpertLayer: experts, mixed by gates that each see some of them.

MMoE: Ma et al., KDD 2018, https://doi.org/10.1145/3219819.3220007, equations 6-7.
PLE: Tang et al., RecSys 2020, https://doi.org/10.1145/3383313.3412236, equations 5-8.
"""

# B rows, G gates, E experts, V experts visible to a gate, D input width, H expert width, L logits of a gate's product

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Literal, cast

import torch
from torch import Tensor, nn

from recmoe.axes import PartNames, WeightAxes, name_experts
from recmoe.moe.executors import (
    ForkShared,
    copies_by_gate,
    dispatched,
    dispatched_in_place,
    mixed_apart,
    mixed_in_one,
    mixed_in_turn,
)
from recmoe.moe.expert_dropout import drop_experts
from recmoe.moe.experts.stack import ExpertStack, MergesWeights, TakesGroups, outputs_of_first_rows
from recmoe.moe.gate_use import GateUse
from recmoe.moe.gates.gate import Gate, KnowsExperts, SharesOut, Weighed
from recmoe.moe.gates.weighing import weigh_all
from recmoe.moe.layer_extras import AroundGates, FromUnchosen, JointChoice
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput, select_parts

Mixes = Literal["outputs", "weights"]
"""What gates mix: what experts make of a row, or the experts themselves."""


class ExpertLayer(nn.Module):
    """Experts that gates mix.

    The layer is given one or several inputs. Every expert and every gate reads one of them, and gate g mixes the
    experts that ``mask_GE`` lets it see::

        h[b, g] = Σ_e p[b, g, e] · expert_e(x[b, input of e]),    p[b, g] = gate_g(x[b, input of g])

    Example: two tasks with one expert each, and one shared expert::

                  e0  e1  e2          e0 belongs to task 0, e1 to task 1, e2 is shared
        task 0     1   0   1
        task 1     0   1   1
        shared     1   1   1

    Experts may be mixed around the gates too: with weights v[g, e] that are the same in every row, and added to p. With
    sparse gates only the pairs of row and expert that some gate chose are computed.

    Or gates mix weights in place of outputs: then a row is computed by one expert per gate, the mean of those that the
    gate sees. Soft merging (SMEAR): Muqeeth et al. 2023, https://arxiv.org/abs/2306.03745, section 3.1::

        h[b, g] = expert(x[b]; Σ_e p[b, g, e] · θ_e)

    The paper merges once per example, a text of many tokens; an example is a row here. Where experts of a gate read
    different inputs, the first layer takes the mean of what each makes of its own.

    Args:
        experts: E of them, and which input each reads.
        gates: of the experts that each sees.
        gate_names: by which weights are reported, and matched with those of another model.
        input_of_gate: which of the inputs, or of the gates' own, each gate reads.
        mask_GE: which experts each gate sees, at least one.
        level: of the layer in its model.
        expert_dropout: probability with which a row leaves out an expert of a gate in training; see ``drop_experts``.
        mixes: outputs of experts, or their weights, of a stack that ``MergesWeights``.
        around: an ``AroundGates``, where experts are mixed around the gates.
        choice: what the gates choose together; without it each chooses by itself.
        unchosen: a ``FromUnchosen``, where experts that a row did not choose have a say all the same.
    """

    visible_GE: Tensor
    column_V: Tensor
    read_E: Tensor
    is_shared_E: Tensor

    def __init__(
        self,
        *,
        experts: ExpertStack,
        gates: Sequence[Gate],
        gate_names: Sequence[str],
        input_of_gate: Sequence[int],
        mask_GE: Sequence[Sequence[bool]],
        level: int = 0,
        expert_dropout: float = 0.0,
        mixes: Mixes = "outputs",
        around: nn.Module | None = None,
        choice: JointChoice | None = None,
        unchosen: nn.Module | None = None,
    ) -> None:
        super().__init__()
        assert choice is None or all(all(row) for row in mask_GE), "who chooses together sees the same experts"
        assert all(len(row) == experts.num_experts for row in mask_GE), "one column per expert"
        assert all(any(row) for row in mask_GE), "every gate sees at least one expert"
        assert len(mask_GE) == len(gates) == len(gate_names) == len(input_of_gate) > 0, "one row per gate"
        # A protocol cannot ask for nn.Module, which experts and gates are.
        self.experts = cast(nn.Module, experts)
        self.gates = nn.ModuleList(cast(nn.Module, gate) for gate in gates)
        self.expert_names = experts.names
        self.gate_names = tuple(gate_names)
        self.input_of_gate = tuple(input_of_gate)
        self.level = level
        self.expert_dropout = expert_dropout
        assert mixes == "outputs" or isinstance(experts, MergesWeights), "experts that can be merged"
        self.mixes = mixes
        self.fork: ForkShared | None = None
        """What tells apart the gradients that the gates send to experts which several of them see."""
        self.computes_all = False
        """Whether experts are computed in rows too for which no gate chose them: their number is known beforehand."""
        self.out_features = experts.out_features
        self.around = around
        self.unchosen = unchosen
        added_GE = [[False] * experts.num_experts] * len(gates) if around is None else cast(AroundGates, around).mask_GE
        self.choice = choice
        self.seen = [[expert for expert, is_seen in enumerate(row) if is_seen] for row in mask_GE]
        for gate, seen in zip(gates, self.seen, strict=True):
            if isinstance(gate, KnowsExperts):
                gate.take_names([self.expert_names[expert] for expert in seen])
        self.mixed = [
            [expert for expert, (is_seen, is_added) in enumerate(zip(seen, added, strict=True)) if is_seen or is_added]
            for seen, added in zip(mask_GE, added_GE, strict=True)
        ]
        """By gate: the experts that it sees, and those that are mixed around it."""
        self._num_added = [sum(row) for row in added_GE]
        assert mixes == "outputs" or around is None, "weights are merged by shares"
        assert choice is None or around is None, "who chooses together has no experts around the gates"
        self.register_buffer("visible_GE", torch.tensor(mask_GE, dtype=torch.bool), persistent=False)
        # Not by nonzero(), which the meta device lacks.
        columns = [column for column, is_seen in enumerate(chain.from_iterable(mask_GE)) if is_seen]
        self.register_buffer("column_V", torch.tensor(columns), persistent=False)
        self.register_buffer("read_E", torch.tensor(experts.input_of_expert), persistent=False)
        num_readers = Counter(chain.from_iterable(self.mixed))
        is_shared_E = torch.tensor([num_readers[expert] > 1 for expert in range(experts.num_experts)])
        self.register_buffer("is_shared_E", is_shared_E, persistent=False)

    @property
    def is_sparse(self) -> bool:
        """Whether only what some gate chose is computed, in the mode that the gates are in."""
        leaves_out = self.choice is not None and self.choice.num_used < self.visible_GE.shape[1]
        return not self.computes_all and (leaves_out or any(cast(Gate, gate).is_sparse for gate in self.gates))

    @property
    def num_used(self) -> tuple[int, ...]:
        """Of each gate, the experts with a weight per row, at most."""
        if self.choice is not None:
            return (min(self.choice.num_used, self.visible_GE.shape[1]),) * len(self.gates)
        return tuple(
            min(cast(Gate, gate).num_used + num_added, len(mixed))
            for gate, num_added, mixed in zip(self.gates, self._num_added, self.mixed, strict=True)
        )

    @property
    def num_pairs(self) -> int:
        """Experts to which some gate gives a weight in a row, at most."""
        return sum(self.num_used) if self.choice is None else self.choice.num_pairs(len(self.gates))

    def curves(self) -> Mapping[str, float]:
        """Of each gate that shares out its experts among the rows of a training batch, since the last call.

        ``rerouted``: the share of rows that had other experts than served ones would; ``unrouted``: of those with none.
        """
        values: dict[str, float] = {}
        for name, gate in zip(self.gate_names, self.gates, strict=True):
            if not isinstance(gate, SharesOut):
                continue
            num_rows, num_rerouted, num_unrouted = gate.take_counts()
            if num_rows:
                values[f"train/{name}/level{self.level}/rerouted"] = num_rerouted / num_rows
                values[f"train/{name}/level{self.level}/unrouted"] = num_unrouted / num_rows
        return values

    def weight_axes(self) -> WeightAxes:
        """A gate's outputs are the experts that it sees."""
        seen_names = [tuple(self.expert_names[expert] for expert in seen) for seen in self.seen]
        return {
            f"gates.{index}.{name}": tuple(name_experts(labels, names) for labels in of_weight)
            for index, (gate, names) in enumerate(zip(self.gates, seen_names, strict=True))
            for name, of_weight in cast(Gate, gate).weight_axes().items()
        }

    def part_names(self) -> PartNames:
        """Every gate is a part."""
        return {"gates": self.gate_names}

    def forward(
        self,
        inputs: Sequence[Tensor | SidedInput],
        groups: Groups = NO_GROUPS,
        *,
        gate_inputs: Sequence[Tensor | SidedInput] | None = None,
    ) -> tuple[list[Tensor], GateUse]:
        """Mix the experts.

        Args:
            inputs: x_BD, or the sided inputs that stand for them.
            groups: what gates may read besides.
            gate_inputs: what gates read where it is not what experts read.

        Returns:
            One h_BH per gate, and how the gates weighted the experts, without what is mixed around them.
        """
        weights, use = self.route(inputs, groups, gate_inputs=gate_inputs)
        weights_BGE = use.weights_BGE
        if self.around is not None:
            weights_BGE = weights_BGE + self.around()
            weights = [
                of_gate if len(mixed) == of_gate.shape[1] else select_parts(of_gate, mixed, dim=1)
                for of_gate, mixed in zip(weights_BGE.unbind(1), self.mixed, strict=True)
            ]
        experts = cast(ExpertStack, self.experts)
        if self.mixes == "weights":
            assert self.fork is None, "merged experts have no outputs of which gates could read copies"
            h = cast(MergesWeights, experts).merged(inputs, weights=weights, seen=self.seen)
        elif self.is_sparse and isinstance(experts, TakesGroups) and experts.is_grouped:
            h = dispatched_in_place(
                experts,
                inputs,
                read_E=self.read_E,
                weights_BGE=weights_BGE,
                num_used=self.num_used,
                num_pairs=self.num_pairs,
                is_shared_E=self.is_shared_E,
                fork=self.fork if torch.is_grad_enabled() else None,
            )
        elif self.fork is not None and torch.is_grad_enabled():
            h = self._mix_apart(experts, inputs, weights, weights_BGE, self.fork)
        elif self.is_sparse:
            h = dispatched(experts, inputs, weights_BGE=weights_BGE)
        elif experts.is_batched:
            h = mixed_in_one(experts, inputs, weights_BGE=weights_BGE)
        else:
            h = mixed_in_turn(experts, inputs, weights=weights, seen=self.mixed)
        if self.unchosen is not None:
            added = cast(FromUnchosen, self.unchosen)(
                inputs if gate_inputs is None else gate_inputs,
                reads=self.input_of_gate,
                is_unchosen_BGE=self.visible_GE & (use.weights_BGE == 0),
            )
            h = [h_BH + added_BH for h_BH, added_BH in zip(h, added, strict=True)]
        return h, use

    def route(
        self,
        inputs: Sequence[Tensor | SidedInput],
        groups: Groups = NO_GROUPS,
        *,
        gate_inputs: Sequence[Tensor | SidedInput] | None = None,
    ) -> tuple[list[Tensor], GateUse]:
        """p_BV of every gate, and the same weights by the names of gates and experts; see ``forward``."""
        gates = [cast(Gate, gate) for gate in self.gates]
        by_gate = weigh_all(gates, self.input_of_gate, inputs if gate_inputs is None else gate_inputs, groups)
        weights = self._kept(by_gate)
        use = GateUse(
            level=self.level,
            gates=self.gate_names,
            experts=self.expert_names,
            weights_BGE=self._spread(weights),
            visible_GE=self.visible_GE,
            sums_to_one=all(gate.sums_to_one for gate in gates),
            by_gate=tuple(by_gate),
            outputs=partial(outputs_of_first_rows, cast(ExpertStack, self.experts), inputs),
        )
        return weights, use

    def _mix_apart(
        self,
        experts: ExpertStack,
        inputs: Sequence[Tensor | SidedInput],
        weights: Sequence[Tensor],
        weights_BGE: Tensor,
        fork: ForkShared,
    ) -> list[Tensor]:
        """One h_BH per gate, which reads copies of the experts that others see too."""
        copies = partial(copies_by_gate, seen=self.mixed, fork=fork)
        if self.is_sparse:
            return dispatched(experts, inputs, weights_BGE=weights_BGE, copies=copies)
        return mixed_apart(copies(experts(inputs)), weights=weights, seen=self.mixed, is_batched=experts.is_batched)

    def _kept(self, by_gate: Sequence[Weighed]) -> list[Tensor]:
        """p_BV of every gate; in training some experts are left out, if so configured."""
        weights = [of_gate.weights_BV for of_gate in by_gate]
        weights = weights if self.choice is None else self.choice(weights)
        if self.training and self.expert_dropout:
            return [drop_experts(p_BV, self.expert_dropout) for p_BV in weights]
        return weights

    def _spread(self, weights: Sequence[Tensor]) -> Tensor:
        """p_BGE: the weights of all gates, each in the columns of the experts that its gate sees."""
        seen_BV = torch.cat(list(weights), dim=1)
        p_BV = seen_BV.new_zeros(seen_BV.shape[0], self.visible_GE.numel())
        return p_BV.index_copy(1, self.column_V, seen_BV).view(-1, *self.visible_GE.shape)

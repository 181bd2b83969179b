"""ExpertLayer: experts in groups, mixed by gates that each see some of them.

MMoE: Ma et al., KDD 2018, https://doi.org/10.1145/3219819.3220007, equations 6-7.
PLE: Tang et al., RecSys 2020, https://doi.org/10.1145/3383313.3412236, equations 5-8.
"""

# B rows, G gates, E experts, V experts visible to a gate, D input width, H expert width,
# T triples (row, gate, expert) with a weight, P pairs (row, expert) to compute

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from recmoe.moe.experts import Experts, Form
from recmoe.moe.gates.softmax import gate_logits
from recmoe.moe.linear import SidedInput, select_rows
from recmoe.moe.mixing import mix


class Gate(Protocol):
    """A module that weights the experts it sees, row by row: ``shares`` of x · W."""

    is_sparse: bool
    """Most weights are exactly zero, so that it pays to compute only the experts of the others."""
    weight_VD: nn.Parameter

    def __call__(self, x: Tensor | SidedInput) -> Tensor:
        """p_BV in float32, not negative, rows sum to one."""
        ...

    def shares(self, logits_BV: Tensor) -> Tensor:
        """p_BV from x · W."""
        ...


class MakeGate(Protocol):
    """What builds a gate, such as the ``build`` of a gate's config."""

    def __call__(self, *, in_features: int, num_experts: int) -> Gate:
        """The gate over ``num_experts`` visible experts."""
        ...


@dataclass(frozen=True)
class GateUse:
    """How the gates of one level weighted its experts on the rows of one batch."""

    level: int
    gates: tuple[str, ...]
    experts: tuple[str, ...]
    weights_BGE: Tensor
    """float32, part of the graph; zero where a gate does not see or did not choose an expert."""
    visible_GE: Tensor | None = None
    """bool, which experts each gate sees; None where every gate sees all."""


class ExpertLayer(nn.Module):
    """Experts in groups, mixed by gates.

    Group g feeds its own input to the experts it owns. Gate g reads the input of group g and mixes
    the experts that ``mask_GE`` lets it see::

        h[b, g] = Σ_e p[b, g, e] · expert_e(x[b, group of e]),    p[b, g] = gate_g(x[b, g])

    Example: two tasks with one expert each, and one shared expert (3 groups, G = 3, E = 3)::

                  e0  e1  e2          e0 belongs to task 0, e1 to task 1, e2 is shared
        task 0     1   0   1
        task 1     0   1   1
        shared     1   1   1

    With sparse gates only the pairs of row and expert that some gate chose are computed.

    Args:
        experts_per_group: how many experts each group owns; a group may own none.
        mask_GE: which experts each gate sees, at least one; groups beyond the last row have no gate.
        in_features: D.
        hidden: width of each layer of an expert; the last is H.
        make_gate: builds a gate over the experts it sees.
        dropout: share of an expert's activations dropped in training.
        form: how the experts are computed, see ``Experts``.
    """

    visible_GE: Tensor
    column_V: Tensor

    def __init__(
        self,
        *,
        experts_per_group: Sequence[int],
        mask_GE: Sequence[Sequence[bool]],
        in_features: int,
        hidden: Sequence[int],
        make_gate: MakeGate,
        dropout: float = 0.0,
        form: Form = "auto",
    ) -> None:
        super().__init__()
        assert all(len(row) == sum(experts_per_group) for row in mask_GE), "the mask has a column per expert"
        assert all(any(row) for row in mask_GE), "every gate sees at least one expert"
        assert 0 < len(mask_GE) <= len(experts_per_group), "every gate has a group whose input it reads"
        self.experts = Experts(
            experts_per_group=experts_per_group, in_features=in_features, hidden=hidden, dropout=dropout, form=form
        )
        self.out_features = self.experts.out_features
        self.seen = [[expert for expert, is_seen in enumerate(row) if is_seen] for row in mask_GE]
        gates = [make_gate(in_features=in_features, num_experts=len(seen)) for seen in self.seen]
        self.is_sparse = all(gate.is_sparse for gate in gates)
        # A protocol cannot ask for nn.Module, which every gate is.
        self.gates = nn.ModuleList(cast(nn.Module, gate) for gate in gates)
        visible_GE = torch.tensor(mask_GE, dtype=torch.bool)
        self.register_buffer("visible_GE", visible_GE, persistent=False)
        # Not by nonzero(), which the meta device lacks.
        columns = [column for column, is_seen in enumerate(chain.from_iterable(mask_GE)) if is_seen]
        self.register_buffer("column_V", torch.tensor(columns), persistent=False)

    def forward(self, inputs: Sequence[Tensor | SidedInput]) -> tuple[list[Tensor], Tensor]:
        """Mix the experts.

        Args:
            inputs: one per group, x_BD or the sided input that stands for it; give groups with equal inputs
                the same object, then it is multiplied in one go and never copied.

        Returns:
            One h_BH per gate.
            p_BGE: gate weights in float32; zero where the mask is zero, rows sum to one.
        """
        weights = self._weigh(inputs)
        weights_BGE = self._spread(weights)
        if self.is_sparse:
            return self._mix_chosen(inputs, weights_BGE), weights_BGE
        if self.experts.is_batched:
            y_EBH = self.experts.batched(inputs)
            h_GBH = torch.einsum("bge,ebh->gbh", weights_BGE.to(y_EBH.dtype), y_EBH)
            return list(h_GBH.unbind(0)), weights_BGE
        return mix(self.experts(inputs), weights=weights, seen=self.seen), weights_BGE

    def _weigh(self, inputs: Sequence[Tensor | SidedInput]) -> list[Tensor]:
        """p_BV of every gate; neighbours that read the same input are multiplied in one go."""
        weights: list[Tensor] = []
        for _, pairs in groupby(zip(inputs, self.gates, strict=False), key=lambda pair: id(pair[0])):
            run = list(pairs)
            gates = [cast(Gate, gate) for _, gate in run]
            weight_VD = torch.cat([gate.weight_VD for gate in gates]) if len(gates) > 1 else gates[0].weight_VD
            logits = torch.split(gate_logits(run[0][0], weight_VD), [len(gate.weight_VD) for gate in gates], dim=1)
            weights += [gate.shares(logits_BV) for gate, logits_BV in zip(gates, logits, strict=True)]
        return weights

    def _spread(self, weights: Sequence[Tensor]) -> Tensor:
        """p_BGE: the weights of all gates, each in the columns of the experts that its gate sees."""
        seen_BV = torch.cat(list(weights), dim=1)
        p_BV = seen_BV.new_zeros(seen_BV.shape[0], self.visible_GE.numel())
        return p_BV.index_copy(1, self.column_V, seen_BV).view(-1, *self.visible_GE.shape)

    def _mix_chosen(self, inputs: Sequence[Tensor | SidedInput], weights_BGE: Tensor) -> list[Tensor]:
        """One h_BH per gate, from the pairs of row and expert that have a weight."""
        num_rows, num_gates, num_experts = weights_BGE.shape
        expert_T, row_T, gate_T = weights_BGE.detach().permute(2, 0, 1).nonzero(as_tuple=True)
        # Gates may agree on a pair: it is computed once.
        pairs_P, pair_T = torch.unique_consecutive(expert_T * num_rows + row_T, return_inverse=True)
        rows_per_expert = torch.bincount(pairs_P // num_rows, minlength=num_experts).tolist()
        rows_E = (pairs_P % num_rows).split(rows_per_expert)
        y_PH = torch.cat(
            self.experts.each(
                [
                    select_rows(inputs[group], rows)
                    for group, rows in zip(self.experts.group_of_expert, rows_E, strict=True)
                ]
            )
        )
        weights_T = weights_BGE[row_T, gate_T, expert_T].to(y_PH.dtype)
        h_GBH = y_PH.new_zeros(num_gates * num_rows, self.out_features).index_add(
            0, gate_T * num_rows + row_T, weights_T.unsqueeze(1) * y_PH.index_select(0, pair_T)
        )
        return list(h_GBH.view(num_gates, num_rows, self.out_features).unbind(0))

"""gate_features(): which features of a row move the weights of a gate.

Integrated gradients: Sundararajan et al., ICML 2017, https://arxiv.org/abs/1703.01365, equation 1, by captum.
"""

# B rows, D input width, V experts visible to a gate, F features

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recmoe.errors import EvaluationError, StackError
from recmoe.features.batch import Batch
from recmoe.features.layout import SparseKey
from recmoe.model import MultiTaskRanker
from recmoe.model.inputs import input_order
from recmoe.moe.balance.statistics import shares_of, visible
from recmoe.moe.gate_use import GateUse

CHUNK_ROWS = 64
"""Rows at a time; each is computed once per step of the integral."""
SMALLEST_DIFFERENCE = 1e-4
"""Of weights of a gate; less is close to what float32 rounds away."""


@dataclass(frozen=True)
class GateFeatures:
    """How far each feature moves the weights that a gate gives its experts, over some rows.

    Example: two features; of the weight of shared.1, country moves .20 in the mean row, price next to nothing::

                   shared.0  shared.1
        country        .10       .20
        price          .02       .01
    """

    level: int
    gate: str
    experts: tuple[str, ...]
    features: tuple[str, ...]
    """In the order of the model's input."""
    moves_FV: Tensor
    """float64; mean over rows of the size of a feature's attribution, in units of weight."""
    difference_V: Tensor
    """float64; mean over rows of how far the weight lies from that of the mean row."""
    gap_V: Tensor
    """float64; mean over rows of how far the attributions of all features miss that difference together."""
    num_rows: int

    @property
    def shares_F(self) -> Tensor:
        """The part of each feature in all that moves the gate; 0 where nothing does."""
        moves_F = self.moves_FV.sum(dim=1)
        return moves_F / moves_F.sum().clamp(min=torch.finfo(moves_F.dtype).tiny)

    @property
    def gap(self) -> float:
        """What the attributions miss, as a part of the differences that they are to add up to; 0 is exact."""
        return float(self.gap_V.sum() / self.difference_V.sum().clamp(min=SMALLEST_DIFFERENCE))

    def ranked(self) -> list[tuple[str, float]]:
        """Features and their parts in what moves the gate, the largest first."""
        pairs = zip(self.features, self.shares_F.tolist(), strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])

    def to_json(self) -> dict[str, Any]:
        """As plain numbers, by feature."""
        return {
            "level": self.level,
            "gate": self.gate,
            "num_rows": self.num_rows,
            "gap": self.gap,
            "shares": dict(zip(self.features, self.shares_F.tolist(), strict=True)),
            "moves": {
                feature: dict(zip(self.experts, moves, strict=True))
                for feature, moves in zip(self.features, self.moves_FV.tolist(), strict=True)
            },
        }


def gate_features(ranker: MultiTaskRanker, batch: Batch, *, num_steps: int = 32) -> list[GateFeatures]:
    """Attributions of every gate that sees several experts, by the features that the model's input is made of.

    A gate's weight w_v is explained against the mean input x' of these rows. Along the line from x' to a row x::

        a[d] = (x[d] - x'[d]) · ∫_0^1  ∂w_v / ∂x[d] (x' + α · (x - x')) dα,      Σ_d a[d] = w_v(x) - w_v(x')

    A feature's attribution is the sum over its columns of the input: of the vectors of its ids, of its number, or of
    what is made of its history. It is signed; what is shown of it is its mean size. w is the share that the gate would
    give were it not sparse: a choice of the best has no gradient. The sum is exact for smooth gates, but for the steps
    of the integral. Below level 0 it is not where sparse gates lie under it, whose choices jump; ``gap`` says by how
    much. What a gate reads by an id itself, such as a domain, stays as it is.

    Args:
        ranker: with plain tables; is left in evaluation mode.
        batch: the rows, at least two.
        num_steps: of the integral, by Gauss-Legendre quadrature.

    Raises:
        StackError: captum is not installed.
        EvaluationError: no gate of the model has a choice, or there is one row.
    """
    if batch.num_rows < 2:
        raise EvaluationError("a row is explained against the mean of several: give at least two rows")
    attribute = _integrated_gradients(num_steps)
    ranker.eval()
    with torch.no_grad():
        inputs = ranker.input_layer(batch).inputs
        assert isinstance(inputs.x, Tensor)
        x_BD = inputs.x
        uses: Sequence[GateUse] = ranker.model(inputs).routing
    ids = {name: ids_B for name, ids_B in inputs.groups.items() if name not in ranker.input_layer.groups}

    def uses_of(x_BD: Tensor, *ids_B: Tensor) -> Sequence[GateUse]:
        routing: Sequence[GateUse] = ranker.model(
            ranker.input_layer.inputs_of(x_BD, dict(zip(ids, ids_B, strict=True)))
        ).routing
        return routing

    choosing = [(level, gate) for level, use in enumerate(uses) for gate in _choosing(use)]
    if not choosing:
        raise EvaluationError("no gate of this model chooses among experts; there is nothing to explain")
    found = []
    for level, gate in choosing:

        def shares(x_BD: Tensor, *ids_B: Tensor, level: int = level, gate: int = gate) -> Tensor:
            # A gate may read ids alone, and still has a gradient: none.
            return _shares(uses_of(x_BD, *ids_B)[level], gate) + 0.0 * x_BD.sum(dim=1, keepdim=True)

        found.append(_explained(ranker, uses[level], gate, shares, x_BD, list(ids.values()), attribute))
    return found


Attribute = Callable[[Callable[..., Tensor], Tensor, Tensor, tuple[Tensor, ...], int], Tensor]
"""From a function, rows x_BD, where they are counted from, what else the function reads and its output: a_BD."""


def _integrated_gradients(num_steps: int) -> Attribute:
    """The door to captum."""
    try:
        from captum.attr import IntegratedGradients
    except ImportError as error:
        raise StackError(f"integrated gradients need captum ({error}); pip install 'recmoe[explain]'") from error

    def attribute(
        shares: Callable[..., Tensor], x_BD: Tensor, mean_1D: Tensor, others: tuple[Tensor, ...], expert: int
    ) -> Tensor:
        a_BD: Tensor = IntegratedGradients(shares).attribute(
            x_BD, mean_1D, target=expert, additional_forward_args=others or None, n_steps=num_steps
        )
        return a_BD

    return attribute


def _explained(
    ranker: MultiTaskRanker,
    use: GateUse,
    gate: int,
    shares: Callable[..., Tensor],
    x_BD: Tensor,
    others: Sequence[Tensor],
    attribute: Attribute,
) -> GateFeatures:
    """One gate, expert by expert and some rows at a time."""
    names, columns = _columns(ranker)
    experts = [name for name, is_seen in zip(use.experts, visible(use)[gate].tolist(), strict=True) if is_seen]
    mean_1D = x_BD.mean(dim=0, keepdim=True)
    moves_FV = torch.zeros(len(names), len(experts), dtype=torch.float64)
    difference_V, gap_V = torch.zeros(2, len(experts), dtype=torch.float64)
    for first in range(0, len(x_BD), CHUNK_ROWS):
        rows = slice(first, first + CHUNK_ROWS)
        x_bD, others_b = x_BD[rows], tuple(ids_B[rows] for ids_B in others)
        with torch.no_grad():
            difference_bV = (shares(x_bD, *others_b) - shares(mean_1D.expand_as(x_bD), *others_b)).double().cpu()
        for expert in range(len(experts)):
            a_bD = attribute(shares, x_bD, mean_1D, others_b, expert).detach().double().cpu()
            a_Fb = torch.zeros(len(names), len(a_bD), dtype=torch.float64).index_add(0, columns, a_bD.t())
            moves_FV[:, expert] += a_Fb.abs().sum(dim=1)
            gap_V[expert] += (a_Fb.sum(dim=0) - difference_bV[:, expert]).abs().sum()
        difference_V += difference_bV.abs().sum(dim=0)
    return GateFeatures(
        level=use.level,
        gate=use.gates[gate],
        experts=tuple(experts),
        features=names,
        moves_FV=moves_FV / len(x_BD),
        difference_V=difference_V / len(x_BD),
        gap_V=gap_V / len(x_BD),
        num_rows=len(x_BD),
    )


def _choosing(use: GateUse) -> Iterator[int]:
    """Gates that see several experts."""
    yield from (gate for gate, num in enumerate(visible(use).sum(dim=1).tolist()) if num > 1)


def _shares(use: GateUse, gate: int) -> Tensor:
    """p_BV, as the gate would give it were it not sparse."""
    if use.by_gate:
        return shares_of(use.by_gate[gate])
    return use.weights_BGE[:, gate, visible(use)[gate]]


def _columns(ranker: MultiTaskRanker) -> tuple[tuple[str, ...], Tensor]:
    """The features of the model's input, and the feature of each of its columns."""
    parts = [
        (part.feature, part.vector_width if isinstance(part, SparseKey) else part.width)
        for part in input_order(ranker.input_layer.layout)
    ]
    names = tuple(dict.fromkeys(feature for feature, _ in parts))
    place = torch.tensor([names.index(feature) for feature, _ in parts])
    return names, place.repeat_interleave(torch.tensor([width for _, width in parts]))

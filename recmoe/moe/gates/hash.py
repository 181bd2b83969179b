"""Hash gate: a fixed rule sends the rows of one id to one expert; nothing of it is learned.

Hash Layers: Roller et al., NeurIPS 2021, https://arxiv.org/abs/2106.04426, section 3, balanced and random hash.
"""

# B rows, V visible experts

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from recmoe.axes import WeightAxes
from recmoe.moe.gates.gate import GateKind
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput, id_group

Assignment = Literal["balanced", "random"]


class HashGateConfig(GateKind):
    """One expert per row, by the id of a feature; a fixed rule that nothing moves."""

    untaught: ClassVar[frozenset[str]] = frozenset({"x"})
    kind: Literal["hash"] = "hash"
    feature: str | None = None
    """Feature of kind id whose rows share an expert, such as the country or the category."""
    assignment: Assignment = "balanced"
    """``balanced`` deals the ids out in turn, the most frequent first where the table holds them in that order, as a
    vocabulary does; ``random`` hashes them."""

    def id_features(self) -> Mapping[str, str | None]:
        """The feature, which a config has to name."""
        return {"feature": self.feature}

    def build(self, *, in_features: int, num_experts: int) -> "HashGate":
        """The gate over ``num_experts`` visible experts."""
        del in_features
        return HashGate(num_experts=num_experts, feature=self.feature, assignment=self.assignment)


class HashGate(nn.Module):
    """p_BV = 1 for the expert of the row's id, 0 for the others::

        balanced   expert = r mod V
        random     expert = ⌊SplitMix64(r) / 2⌋ mod V

    where r is the row of the id in its table. The paper's balanced hash gives the ids, the most frequent first, to the
    expert with the fewest rows so far; a gate knows their order and not their counts, so it deals them in turn: of the
    V most frequent ones each expert has one. Ids that are unknown or missing share r = 0, and so an expert.

    All gates of a model send an id to the same place among the experts that they see. The paper's MultiHash, which
    puts an expert together from slices that several hashes choose, is left out.

    Args:
        num_experts: V.
        feature: whose ids it reads; without one all rows are as of unknown ids.
        assignment: see above.
    """

    sums_to_one = True
    is_sparse = True
    num_used = 1

    def __init__(self, *, num_experts: int, feature: str | None, assignment: Assignment = "balanced") -> None:
        super().__init__()
        self.num_experts = num_experts
        self.feature = feature
        self.assignment = assignment

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> Tensor:
        """p_BV in float32: one of a row is one, the others are zero."""
        row_B = self._rows(x, groups)
        number_B = row_B if self.assignment == "balanced" else _mixed(row_B)
        expert_V = torch.arange(self.num_experts, device=row_B.device)
        return (number_B.remainder(self.num_experts)[:, None] == expert_V).float()

    def linear_form(self) -> None:
        """It is no product; see ``Gate``."""

    def weight_axes(self) -> WeightAxes:
        """It has no weights; see ``Gate``."""
        return {}

    def _rows(self, x: Tensor | SidedInput, groups: Groups) -> Tensor:
        """int64 [B]: the row of each id in its table."""
        if self.feature is None:
            if isinstance(x, Tensor):
                return x.new_zeros(x.shape[0], dtype=torch.int64)
            return torch.zeros_like(x.request_C)
        row_B = groups[id_group(self.feature)]
        assert isinstance(row_B, Tensor)
        return row_B


def _mixed(number_B: Tensor) -> Tensor:
    """SplitMix64, Steele et al., OOPSLA 2014, https://doi.org/10.1145/2660193.2660195; 63 bits of it, not negative."""
    z_B = number_B + _signed(0x9E3779B97F4A7C15)
    z_B = (z_B ^ _shifted(z_B, 30)) * _signed(0xBF58476D1CE4E5B9)
    z_B = (z_B ^ _shifted(z_B, 27)) * _signed(0x94D049BB133111EB)
    return _shifted(z_B ^ _shifted(z_B, 31), 1)


def _shifted(z_B: Tensor, bits: int) -> Tensor:
    """z >> bits of unsigned numbers: torch's own would fill in the sign."""
    return (z_B >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """The 64 bits as torch has them."""
    return number - (1 << 64) if number >> 63 else number

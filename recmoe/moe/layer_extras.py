"""What an expert layer may take besides its experts and gates."""

# B rows, G gates, E experts, V experts visible to a gate

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from recmoe.moe.linear import SidedInput


class AroundGates(Protocol):
    """A module that weights experts in all rows alike, on top of what the gates give them."""

    mask_GE: Sequence[Sequence[bool]]
    """Which experts it adds to what each gate mixes."""

    def __call__(self) -> Tensor:
        """v_GE, of any sign; zero outside of the mask."""
        ...


class JointChoice(Protocol):
    """What gates that see the same experts choose together: it takes weights away.

    What is left sums to what all summed to.
    """

    num_used: int
    """Experts that a gate leaves a weight per row, at most."""

    def num_pairs(self, num_gates: int) -> int:
        """Experts to which any of so many gates leaves a weight in a row, at most."""
        ...

    def __call__(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """p_BV of every gate from the p_BV that each would give by itself."""
        ...


class FromUnchosen(Protocol):
    """A module that adds to what gates mix, by what a row did not choose."""

    def __call__(
        self, inputs: Sequence[Tensor | SidedInput], *, reads: Sequence[int], is_unchosen_BGE: Tensor
    ) -> list[Tensor]:
        """What is added to the h_BH of every gate.

        Args:
            inputs: x_BD, or the sided inputs that stand for them.
            reads: by gate, which of them it reads.
            is_unchosen_BGE: bool, the experts that a gate sees and a row gives no weight.
        """
        ...

"""Rule: from what all rows of a batch think of the experts to which of them computes which."""

# B rows, V experts visible to a gate, K experts that a row asks for

import math
from typing import Protocol

from torch import Tensor


class Rule(Protocol):
    """Shares out the experts of a gate among the rows of a training batch."""

    @property
    def uses_all(self) -> bool:
        """Whether a row may be given every expert, however few it asked for."""
        ...

    def __call__(self, scores_BV: Tensor, k: int) -> Tensor:
        """is_given_BV, bool.

        Args:
            scores_BV: probabilities of the gate, without a gradient.
            k: K.
        """
        ...


def room(*, num_rows: int, num_experts: int, k: int, capacity_factor: float) -> int:
    """Rows that one expert takes: its even part of what is asked for, times the factor, rounded up."""
    return min(num_rows, math.ceil(capacity_factor * k * num_rows / num_experts))

"""GateUse: how the gates of one level weighted its experts."""

# B rows, G gates, E experts, H width of an expert's output

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from recmoe.moe.gates.gate import Weighed


@dataclass(frozen=True)
class GateUse:
    """How the gates of one level weighted its experts on the rows of one batch."""

    level: int
    """Of an architecture from 0; of a trunk below it from -1 downwards."""
    gates: tuple[str, ...]
    experts: tuple[str, ...]
    weights_BGE: Tensor
    """float32, part of the graph; zero where a gate does not see or did not choose an expert."""
    visible_GE: Tensor | None = None
    """bool, which experts each gate sees; None where every gate sees all."""
    sums_to_one: bool = True
    """Whether the weights of every row of every gate sum to one."""
    by_gate: tuple[Weighed, ...] = ()
    """What each gate gave by itself, with what it has to say besides; for balance terms."""
    outputs: Callable[[int], Mapping[str, Tensor]] | None = None
    """From a number of rows to y_BH of every expert by name on the first so many rows of the batch: computed anew,
    without dropout. Experts that hand their input on as it is are left out."""
    ids: Mapping[str, Tensor] = field(default_factory=dict)
    """int64 [B], the row of each row's id in its table, by feature; of features that balance terms read."""

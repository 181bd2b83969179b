"""BalanceKind: a config of something that evens out how gates use experts."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from pydantic import NonNegativeFloat
from torch import Tensor, nn

from recmoe.config import Config
from recmoe.moe.gate_use import GateUse
from recmoe.moe.gates.gate import Detail

BalanceTerm = Callable[[Sequence[GateUse]], Tensor]
"""From the use of the gates at every level, at least one, to a scalar; called once in every training step.

Collective. It may read batch statistics: what it gives then is that of one process with the rows of all workers.
"""


class BalanceKind(Config):
    """What every kind of balance says of itself."""

    reads: ClassVar[frozenset[Detail]] = frozenset()
    """What gates have to give for it, besides their weights."""

    @property
    def factor(self) -> float:
        """Of the term in the loss; 0 where it acts by other means."""
        return 0.0

    def prepare(self, model: nn.Module) -> None:
        """Add what the model has to store for it; to a model that serves, too."""

    def id_features(self) -> Mapping[str, str | None]:
        """Features whose ids it reads, by the key that names them; None where one has to be named."""
        return {}

    @abstractmethod
    def build(self, *, task_names: Sequence[str]) -> BalanceTerm:
        """The term.

        Args:
            task_names: of the tasks with a tower; the gate of a task has its name.
        """


class BalanceLossKind(BalanceKind):
    """A term of the loss."""

    weight: NonNegativeFloat = 0.01
    """Factor of the term in the loss."""

    @property
    def factor(self) -> float:
        """Of the term in the loss."""
        return self.weight

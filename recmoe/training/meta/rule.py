"""MetaRule: what a round of meta-training does with the start."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from torch import Tensor, nn

from recmoe.features.batch import Batch

Domain = Iterator[Batch]
"""Batches of rows of one domain, as many as are asked for."""


class Starts(Protocol):
    """What a rule needs of a learner; see ``Learner``."""

    weights: Mapping[str, nn.Parameter]

    def restart(self) -> None: ...

    def begin_here(self) -> None: ...

    def start(self, name: str) -> Tensor: ...

    def steps(self, batches: Iterable[Batch]) -> Iterator[int]: ...

    def gradients(self, batch: Batch) -> list[Tensor]: ...


class MetaRule(Protocol):
    """Moves the start of a learner."""

    def round(self, domains: Sequence[Domain], *, num_steps: int, left: float) -> None:
        """Take the steps on each of some domains, from the same start, then move the start.

        Args:
            domains: a part of the domains, drawn for this round.
            num_steps: on each.
            left: the share of the rounds that is still to come: 1 in the first, towards 0 in the last.
        """
        ...

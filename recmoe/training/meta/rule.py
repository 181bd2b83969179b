"""MetaRule: what a round of meta-training does with the start."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from recmoe.features.batch import Batch

Domain = Iterator[Batch]
"""Batches of rows of one domain, as many as are asked for."""


class MetaRule(Protocol):
    """Moves the start of a learner."""

    def round(self, domains: Sequence[Domain], *, num_steps: int, left: float) -> None:
        """Take the steps on each of some domains, from the same start, then move the start; the model is left there.

        Args:
            domains: those drawn for this round.
            num_steps: on each.
            left: the share of the rounds that is still to come: 1 in the first, towards 0 in the last.
        """
        ...

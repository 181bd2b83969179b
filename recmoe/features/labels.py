"""Label columns of a log: what they hold and what they imply of each other."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LabelColumn:
    """One label column, as the tasks that use it declare it."""

    column: str
    is_binary: bool
    """Only 0, 1 and null are allowed."""
    implies: str | None = None
    """The binary label column that must be 1 wherever this one is positive: a conversion needs its click."""

"""Roles: what each column of a log is taken for."""

from dataclasses import dataclass, field
from typing import Any, Literal

from recmoe.features.layout import Side


@dataclass(frozen=True)
class LabelRole:
    """An outcome, and the outcome without which it does not happen."""

    column: str
    kind: Literal["binary", "regression"]
    space: str | None
    is_compressed: bool = False
    """Fitted on log1p: some values are far larger than most."""
    note: str = ""
    positive: Any = None
    """What counts as 1, as a config writes it: ``Y``, ``{at_least: 4}``; None where the column holds 0 and 1."""
    name: str | None = None
    """What the task is called where its column has another task too."""
    num_positive: int | None = None
    """Rows that count as 1 where ``positive`` is a threshold."""


@dataclass(frozen=True)
class FeatureRole:
    """A column the model reads."""

    column: str
    kind: Literal["id", "id_list", "numeric"]
    side: Side
    separator: str | None = None
    table: str | None = None
    """The id column whose table holds these ids too."""
    is_compressed: bool = False
    clip: tuple[float, float] | None = None
    """Smallest and largest number let through, where the log holds some that are no numbers."""
    note: str = ""


@dataclass(frozen=True)
class Owners:
    """The columns that name the list, the candidate and the user of a row, as far as the user says which they are."""

    group: str | None = None
    item: str | None = None
    user: str | None = None


FOUND = Owners()
"""Those that are found by their names and values."""


@dataclass
class Roles:
    """What every column of the log is taken for."""

    labels: list[LabelRole] = field(default_factory=list)
    features: list[FeatureRole] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Columns the model does not read, with the reason."""
    doubtful: list[str] = field(default_factory=list)
    """Those of them that may be outcomes, or features: the user has to say."""
    time: str | None = None
    group: str | None = None
    """Rows of one list, or of one user where the log has no lists."""
    is_group_a_list: bool = False
    user: str | None = None
    item: str | None = None

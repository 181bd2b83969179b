"""OwnLabelConfig: what the configs of all tasks with a label and a tower of their own share."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import NonNegativeFloat

from recmoe.config import Config
from recmoe.features.labels import LabelColumn
from recmoe.tasks.task import Measure, OutsideSpace, Space


class OwnLabelConfig(Config):
    """A label, the rows that count for it, and how much it counts."""

    needs_groups: ClassVar[bool] = False
    """Whether its loss compares the rows of a list."""
    measures: ClassVar[Mapping[str, Measure]] = {}
    """Metrics that the kind brings itself, by name up to an @; they take the place of a general one of that name."""

    kind: str
    label: str
    """Column of the label; null rows are left out of loss and metrics."""
    space: Space = None
    """Binary task, or the label column of one, that must be 1 for a row to count; all rows by default."""
    available: str | None = None
    """Column of 0 and 1: rows where it is not 1 say nothing about the task, whatever their label is, such as those of
    advertisers that report no conversions. All rows by default."""
    weight: NonNegativeFloat = 1.0
    """Factor of the task's loss; 0 trains the tower only through products that contain it."""
    outside_space: OutsideSpace = "error"
    """What a positive label outside the space does: stop with an error (conversion without click), or be ignored."""

    @property
    def factors(self) -> tuple[str, ...]:
        """Tasks that it multiplies: none, for it has a tower."""
        return ()

    def label_column(self) -> LabelColumn | None:
        """Its label, as the encoder reads it."""
        return LabelColumn(self.label, is_binary=False)

"""Baseline: a simple model of one task at a time."""

# N rows, M rows of a task

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from recmoe.baselines.rows import RawRows
from recmoe.baselines.task_data import TaskData
from recmoe.evaluation.baselines import BaselineKind


@dataclass(frozen=True)
class Fitted:
    """A model of one task."""

    predict: Callable[[RawRows], NDArray[np.float64]]
    """predictions_N of rows: probabilities, or values on the scale of the task's error."""
    setting: str
    """What validation has chosen, in words."""


class Baseline(Protocol):
    """Reads a split once, then learns any number of tasks from it.

    Args of a class: the training rows, the number of threads and the seed.
    """

    kind: ClassVar[BaselineKind]

    @staticmethod
    def absence() -> str | None:
        """Why this machine cannot compute it, and what to do; None where it can."""
        ...

    def fit(self, train: TaskData, validation: TaskData, validation_rows: RawRows) -> Fitted:
        """Learn a task whose training rows hold more than one target.

        Args:
            train: rows among those that the baseline was made with.
            validation: rows among ``validation_rows``; they choose the setting. None at all choose the first one.
        """
        ...

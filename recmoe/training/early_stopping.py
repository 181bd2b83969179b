"""Early stopping: which validation metric decides, and what counts as better."""

from dataclasses import dataclass

from pydantic import NonNegativeFloat, PositiveInt

from recmoe.config import Config


class EarlyStoppingConfig(Config):
    """Stop when a validation metric no longer gets better, and keep the best checkpoint."""

    metric: str = "score"
    """Task, metric and space, such as ``ctr.auc[all]``; ``score`` is the mean over all tasks of the share of a
    constant's loss that the model saves, a task with few positives counting less (``recmoe/evaluation/skill.py``)."""
    patience: PositiveInt = 3
    """Validations in a row without a better value before the run stops."""
    min_delta: NonNegativeFloat = 0.0
    """How much better counts as better."""


@dataclass(frozen=True)
class Validation:
    """A validation metric that decides when to stop."""

    metric: str
    is_higher_better: bool
    min_delta: float
    patience: int

    def is_better(self, value: float, best: float | None) -> bool:
        """Whether a value beats the best so far."""
        if best is None:
            return True
        return value > best + self.min_delta if self.is_higher_better else value < best - self.min_delta

"""Score: the one number per validation that trials are compared by."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from recmoe.errors import ConfigError
from recmoe.evaluation.metrics import metric_best
from recmoe.evaluation.skill import SCORE
from recmoe.experiment import ExperimentConfig


@dataclass(frozen=True)
class Score:
    """What early stopping watches, turned so that higher is better."""

    metric: str
    is_higher_better: bool

    @classmethod
    def of(cls, config: ExperimentConfig) -> "Score":
        """The score of a config.

        Raises:
            ConfigError: it has no validation split or no early stopping.
        """
        if not config.data.validation:
            raise ConfigError(f"{config.name}: tuning compares on data.validation, which names no files; give some")
        stopping = config.training.early_stopping
        if stopping is None:
            raise ConfigError(
                f"{config.name}: tuning compares by what early stopping watches, and there is none; give --metric, "
                "such as --metric 'ctr.auc[all]', or training.early_stopping"
            )
        if stopping.metric == SCORE:
            return cls(SCORE, True)
        return cls(stopping.metric, metric_best(stopping.metric) == "highest")

    def read(self, curves: Mapping[str, float]) -> float | None:
        """The score in a line of a run's curves; None in a line that is no validation, or where it is not defined."""
        value = curves.get(f"val/{self.metric}")
        if value is None or not math.isfinite(value):
            return None
        return value if self.is_higher_better else -value

    def shown(self, score: float) -> float:
        """A score as the metric that it is."""
        return score if self.is_higher_better else -score

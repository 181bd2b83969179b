"""Validator: the validation split scored during a run, for its curves and for early stopping."""

import math
from collections.abc import Callable

from recmoe.evaluation.evaluate import evaluate
from recmoe.evaluation.expert_curves import expert_curves
from recmoe.evaluation.metrics import metric_best
from recmoe.evaluation.predict import Scored
from recmoe.evaluation.skill import SCORE, skill
from recmoe.experiment import ExperimentConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.training.early_stopping import Validation


class Validator:
    """What a validation says.

    Args:
        score: scores the validation split; collective.
    """

    def __init__(self, config: ExperimentConfig, tasks: TaskSet, score: Callable[[], Scored]) -> None:
        self._config = config
        self._tasks = tasks
        self._score = score

    @property
    def stopping(self) -> Validation | None:
        """The metric that decides when to stop."""
        stopping = self._config.training.early_stopping
        if stopping is None:
            return None
        return Validation(
            metric=stopping.metric,
            is_higher_better=stopping.metric == SCORE or metric_best(stopping.metric) == "highest",
            min_delta=stopping.min_delta,
            patience=stopping.patience,
        )

    def values(self) -> tuple[dict[str, float], float | None]:
        """Every metric and the use of experts for the curves; the stopping metric, NaN where it is not defined, None
        without one."""
        # Intervals and metrics of slices are for the final report; here they would only cost time. That the use of
        # experts is cut by slices costs no more than to read their columns.
        quick = self._config.evaluation.model_copy(update={"num_resamples": 0, "slices": ()})
        scored = self._score()
        predictions = scored.predictions
        report = evaluate(predictions, config=quick)
        values = {f"val/{name}": value for name, value in report.values().items()} | expert_curves(scored.levels)
        errors = {name: self._tasks.error(name) for name in self._tasks.names}
        score = skill(predictions, weights=self._tasks.weights, errors=errors).score
        if not math.isnan(score):
            values[f"val/{SCORE}"] = score
        stopping = self._config.training.early_stopping
        if stopping is None:
            return values, None
        return values, score if stopping.metric == SCORE else report.value(stopping.metric)

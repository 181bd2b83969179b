"""compare(): a model against baselines over the same rows, by paired resamples."""

# N rows, T tasks, R resamples

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from recmoe.evaluation.baselines import BaselineKind, Comparison, Estimate, verdict
from recmoe.evaluation.bootstrap import percentiles, resampled
from recmoe.evaluation.evaluate import EvaluationConfig, evaluate
from recmoe.evaluation.metrics.auc import AucConfig
from recmoe.evaluation.metrics.metric import FloatArray, Metric
from recmoe.evaluation.metrics.rmse import RmseConfig
from recmoe.evaluation.predictions import Predictions
from recmoe.tasks.task import has_binary_label

MODEL = "model"


class Paired(NamedTuple):
    """A model against another one on the rows of a task."""

    task: str
    space: str
    metric: str
    other: str
    model: Estimate
    of_other: Estimate
    advantage: Estimate
    """How much better the model is, by paired resamples; positive is better for any metric."""


def compare(
    predictions: Predictions,
    baselines_NT: Mapping[BaselineKind, NDArray[np.floating[Any]]],
    *,
    config: EvaluationConfig,
) -> tuple[Comparison, ...]:
    """A model against each baseline, for every task: AUC of probabilities and scores, RMSE of expected values.

    A baseline says nothing about a task of which its predictions are NaN.

    Every resample draws the same rows (or lists) for both, so that the difference is known better than either.

    Args:
        predictions: of the model.
        baselines_NT: the baselines' predictions of the same rows and tasks.
        config: number of resamples and seed.
    """
    return tuple(
        Comparison(
            task=one.task,
            space=one.space,
            metric=one.metric,
            kind=cast(BaselineKind, one.other),
            model=one.model,
            baseline=one.of_other,
            advantage=one.advantage,
            verdict=verdict(one.advantage),
        )
        for one in paired(predictions, baselines_NT, config=config)
    )


def paired(
    predictions: Predictions, others_NT: Mapping[Any, NDArray[np.floating[Any]]], *, config: EvaluationConfig
) -> Iterator[Paired]:
    """A model against others by their names; see ``compare``."""
    for task in predictions.task_names:
        column = predictions.task_names.index(task)
        mask_N = predictions.in_space(task)
        scores, labels = predictions.of_task(task)
        groups = None if predictions.groups_N is None else predictions.groups_N[mask_N]
        kind = AucConfig() if has_binary_label(predictions.kinds[task]) else RmseConfig()
        beside = {name: values_NT[mask_N, column] for name, values_NT in others_NT.items() if _fits(values_NT, column)}
        states: dict[str, Metric] = {name: kind.build() for name in (MODEL, *beside)}
        states[MODEL].update(scores, labels, groups)
        for name, values_M in beside.items():
            states[name].update(values_M, labels, groups)
        values_R = resampled(
            states, num_rows=len(labels), groups_N=groups, num_resamples=config.num_resamples, seed=config.seed
        )
        sign = 1.0 if kind.best == "highest" else -1.0
        model, model_R = states[MODEL].compute().values_R[0], values_R[MODEL]
        for name in beside:
            baseline = states[name].compute().values_R[0]
            advantage = _estimate(sign * (model - baseline), sign * (model_R - values_R[name]))
            yield Paired(
                task=task,
                space=predictions.spaces[task],
                metric=kind.name,
                other=name,
                model=_estimate(model, model_R),
                of_other=_estimate(baseline, values_R[name]),
                advantage=advantage,
            )


def baseline_values(
    predictions: Predictions, *, config: EvaluationConfig, own: Mapping[str, Collection[str]]
) -> dict[str, Estimate]:
    """All numbers of a baseline, by name, as ``evaluate`` measures a model; slices left out.

    Args:
        own: by task, the metrics that it brings itself: they need more than a prediction, so a baseline has none.
    """
    whole = predictions.predictions_NT
    fitting = [place for place in range(len(predictions.task_names)) if _fits(whole, place)]
    report = evaluate(predictions.take_tasks(fitting), config=config.model_copy(update={"slices": ()}))
    return {row.name: Estimate(row.value, row.low, row.high) for row in report.rows if row.metric not in own[row.task]}


def _fits(values_NT: NDArray[np.floating[Any]], column: int) -> bool:
    return not np.isnan(values_NT[:, column]).all()


def chance_values(predictions: Predictions, *, config: EvaluationConfig) -> dict[str, float]:
    """What a random order of each list gives, by name: the expectation over all orders."""
    if predictions.groups_N is None:
        return {}
    # Ties are measured by expectation, so equal scores stand for all orders.
    level = replace(predictions, predictions_NT=np.full_like(predictions.predictions_NT, 0.5), slices={})
    asked = [metric for metric in config.metrics_for("score", has_groups=True) if metric.needs_groups]
    report = evaluate(
        level, config=config.model_copy(update={"metrics": tuple(asked), "num_resamples": 0, "slices": ()})
    )
    return report.values()


def _estimate(value: float, values_R: FloatArray) -> Estimate:
    bounds = percentiles(values_R) if len(values_R) else None
    low, high = (None, None) if bounds is None or not np.isfinite(value) else bounds
    return Estimate(float(value) if np.isfinite(value) else None, low, high)

"""evaluate(): predictions → report, by task, space, metric and slice."""

# N rows, R resamples

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveInt

from recmoe.config import Config
from recmoe.errors import EvaluationError
from recmoe.evaluation.baselines import BaselineKind
from recmoe.evaluation.bootstrap import intervals
from recmoe.evaluation.metrics import METRIC_KINDS, MetricConfig
from recmoe.evaluation.metrics.measure import RowMean
from recmoe.evaluation.metrics.metric import Metric, MetricValue
from recmoe.evaluation.metrics.ndcg import NdcgConfig
from recmoe.evaluation.metrics.recall import RecallConfig
from recmoe.evaluation.predictions import Predictions
from recmoe.evaluation.report import MetricRow, Report, metric_name
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.task import TaskOutput, has_binary_label


class EvaluationConfig(Config):
    """What is measured on a split."""

    metrics: tuple[MetricConfig, ...] | None = None
    """Metrics, each for the tasks it fits; by default all that fit a task and, over groups, the log. What a kind of
    task measures itself, such as the pinball loss of a quantile, is always given."""
    ks: tuple[PositiveInt, ...] = (5, 10)
    """Places from the top for the default NDCG and recall."""
    slices: tuple[str, ...] = ()
    """Raw columns; every metric is also given for the rows of each of their values."""
    max_slice_values: PositiveInt = 20
    """Values per slice column, the most frequent ones; the others are taken together."""
    baselines: tuple[BaselineKind, ...] = ("logistic_regression", "boosted_trees")
    """Simple models to set beside the model, trained on the same split; [] for none."""
    num_resamples: NonNegativeInt = 200
    """Bootstrap resamples for the 95 % intervals; 0 leaves the intervals out."""
    seed: NonNegativeInt = 0
    """Seed of the bootstrap."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """What does not fit together, as (key path, message)."""
        names = [metric.name for metric in self.metrics or ()]
        for index, name in enumerate(names):
            if name in names[:index]:
                yield f"metrics.{index}", f"{name} is given twice"

    def metrics_for(self, output: TaskOutput, *, has_groups: bool, own: Collection[str] = ()) -> list[MetricConfig]:
        """The general metrics of a task, by what it predicts.

        Args:
            own: metrics that the task brings itself.
        """
        chosen = self.metrics
        if chosen is None:
            chosen = tuple(metric for kind in METRIC_KINDS for metric in self._defaults(kind))
        return [
            metric
            for metric in chosen
            if output in metric.outputs and (has_groups or not metric.needs_groups) and metric.name not in own
        ]

    def metric_names(self, tasks: Mapping[str, TaskConfig], *, has_groups: bool) -> list[str]:
        """Names of everything a report will hold for these tasks, without slices: ``cvr.auc[click]``, …"""
        found = TaskSet(tasks)
        names = []
        for task, own in found.measure_names.items():
            general = self.metrics_for(found.kinds[task], has_groups=has_groups, own=own)
            names += [metric_name(task, name, found.spaces[task]) for name in [*(m.name for m in general), *own]]
        return names

    def _defaults(self, kind: type[MetricConfig]) -> list[MetricConfig]:
        if kind is NdcgConfig or kind is RecallConfig:
            return [kind(k=k) for k in self.ks]
        return [kind()]


def evaluate(predictions: Predictions, *, config: EvaluationConfig) -> Report:
    """Every metric that fits, for every task in its space, over all rows and over each slice.

    Raises:
        EvaluationError: a prediction is not finite, a slice column is not there, a metric over groups was asked
            for by name but the rows have no group.
    """
    if predictions.groups_N is None:
        for metric in config.metrics or ():
            if metric.needs_groups:
                raise EvaluationError(
                    f"metric {metric.name} needs rows with a group, and these have none; name the group column in "
                    "inputs.group, or take the metric out of evaluation.metrics"
                )
    everything = np.ones(predictions.num_rows, dtype=bool)
    rows = _task_rows(predictions, everything, slice_name=None, config=config)
    for column in config.slices:
        if column not in predictions.slices:
            known = ", ".join(predictions.slices) or "none"
            raise EvaluationError(f"slice column {column} was not kept beside the predictions; there are: {known}")
        for value, mask_N in slice_masks(predictions.slices[column], max_values=config.max_slice_values):
            rows += _task_rows(predictions, mask_N, slice_name=f"{column}={value}", config=config)
    return Report(
        rows=tuple(rows),
        num_rows=predictions.num_rows,
        num_resamples=config.num_resamples,
        mean_predictions=predictions.means(),
    )


def slice_masks(column_N: NDArray[Any], *, max_values: int) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """The values of a column and their rows, most frequent first; the rare ones together as ``(other)``.

    None and NaN are ``(missing)``.
    """
    texts_N = np.array([slice_text(value) for value in column_N.tolist()])
    values, value_N, counts = np.unique(texts_N, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    for index in order[:max_values]:
        yield str(values[index]), value_N == index
    if len(order) > max_values:
        yield "(other)", np.isin(value_N, order[max_values:])


def slice_text(value: Any) -> str:
    """The name of a value."""
    if value is None or value != value:
        return "(missing)"
    # A column of integers with nulls arrives as floats.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _task_rows(
    predictions: Predictions, mask_N: NDArray[np.bool_], *, slice_name: str | None, config: EvaluationConfig
) -> list[MetricRow]:
    """Rows of the report for all tasks over some rows."""
    metrics: dict[str, dict[str, Metric]] = {}
    by_mask: dict[bytes, dict[str, Metric]] = {}
    for task in predictions.task_names:
        counts_N = predictions.in_space(task) & mask_N
        scores, labels = predictions.of_task(task, counts_N)
        groups = None if predictions.groups_N is None else predictions.groups_N[counts_N]
        own = predictions.measures.get(task, {})
        chosen = config.metrics_for(predictions.kinds[task], has_groups=groups is not None, own=own)
        metrics[task] = {metric.name: metric.build() for metric in chosen} | {name: RowMean() for name in own}
        for name, metric in metrics[task].items():
            metric.update(np.asarray(own[name][counts_N]) if name in own else scores, labels, groups)
            # Tasks on the same rows share their resamples, which are drawn once.
            by_mask.setdefault(counts_N.tobytes(), {})[f"{task}.{name}"] = metric
    bounds: dict[str, tuple[float, float] | None] = {}
    for mask, states in by_mask.items():
        counts_N = np.frombuffer(mask, dtype=bool)
        groups = None if predictions.groups_N is None else predictions.groups_N[counts_N]
        bounds |= intervals(
            states,
            num_rows=int(counts_N.sum()),
            groups_N=groups,
            num_resamples=config.num_resamples,
            seed=config.seed,
        )
    return [
        _row(predictions, task, mask_N, slice_name, name, metric.compute(), bounds[f"{task}.{name}"])
        for task in predictions.task_names
        for name, metric in metrics[task].items()
    ]


def _row(
    predictions: Predictions,
    task: str,
    mask_N: NDArray[np.bool_],
    slice_name: str | None,
    metric: str,
    value: MetricValue,
    bounds: tuple[float, float] | None,
) -> MetricRow:
    _, labels = predictions.of_task(task, predictions.in_space(task) & mask_N)
    low, high = (None, None) if bounds is None or value.reason else bounds
    return MetricRow(
        task=task,
        space=predictions.spaces[task],
        metric=metric,
        slice=slice_name,
        value=None if value.reason else float(value.values_R[0]),
        low=low,
        high=high,
        num_rows=len(labels),
        num_positive=int(labels.sum()) if has_binary_label(predictions.kinds[task]) else None,
        num_groups_used=value.num_groups_used,
        num_groups_dropped=value.num_groups_dropped,
        reason=value.reason,
    )

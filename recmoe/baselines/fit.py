"""fit_baselines(): one model per task and kind, trained on the rows of the run."""

# N rows of the test split, T tasks

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recmoe.baselines import BASELINES
from recmoe.baselines.baseline import Baseline
from recmoe.baselines.rows import RawRows
from recmoe.baselines.task_data import MAX_TRAIN_ROWS, TaskData, sampled
from recmoe.evaluation.baselines import TITLES, BaselineKind
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.scale import NATURAL, Scale
from recmoe.tasks.task import label_kind

NO_QUANTILES = "none fits: the task predicts a quantile"
"""In place of a setting."""


@dataclass(frozen=True)
class FittedBaselines:
    """What the baselines say about the test rows."""

    predictions_NT: dict[BaselineKind, NDArray[np.float64]] = field(default_factory=dict)
    """Natural units: probabilities, or values in the unit of the label; NaN for tasks that no baseline fits."""
    settings: dict[BaselineKind, dict[str, str]] = field(default_factory=dict)
    missing: dict[BaselineKind, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def fit_baselines(
    kinds: Sequence[BaselineKind],
    tasks: dict[str, TaskConfig],
    *,
    train: RawRows,
    validation: RawRows | None,
    test: RawRows,
    num_threads: int,
    seed: int,
    on_progress: Callable[[str], object] = str,
) -> FittedBaselines:
    """Train each kind for each task, choose its setting on the validation rows, and predict the test rows.

    Args:
        tasks: the config's tasks; a product is learned directly from its own label.
        validation: the last tenth of the training rows is held out in its place where there is none.
        on_progress: is handed a line for each kind that is done or missing.
    """
    found = FittedBaselines()
    whole = TaskSet(tasks)
    names = whole.names
    for kind in kinds:
        absence = BASELINES[kind].absence()
        if absence is not None:
            found.missing[kind] = absence
            on_progress(f"{TITLES[kind]} is left out: {absence}")
            continue
        baseline = BASELINES[kind](train, num_threads=num_threads, seed=seed)
        predictions_NT = np.zeros((test.num_rows, len(names)))
        found.settings[kind] = {}
        for place, name in enumerate(names):
            if whole.kinds[name] == "quantile":
                predictions_NT[:, place], found.settings[kind][name] = np.nan, NO_QUANTILES
                continue
            values_N, setting = _one_task(baseline, whole, name, train, validation, test, seed)
            predictions_NT[:, place] = values_N
            found.settings[kind][name] = setting
        found.predictions_NT[kind] = predictions_NT
        on_progress(f"{TITLES[kind]}: {len(names)} task{'s' if len(names) > 1 else ''} learned")
    for place, name in enumerate(names):
        num_rows = int((train.weights_NT[:, place] > 0).sum())
        if num_rows > MAX_TRAIN_ROWS:
            found.notes.append(f"{name}: baselines learn from {MAX_TRAIN_ROWS:,} of {num_rows:,} training rows")
    return found


def _one_task(
    baseline: Baseline,
    tasks: TaskSet,
    name: str,
    train: RawRows,
    validation: RawRows | None,
    test: RawRows,
    seed: int,
) -> tuple[NDArray[np.float64], str]:
    """predictions of the test rows in natural units, and the setting that was chosen."""
    whole = _data(train, tasks, name)
    held_out, held_out_rows = whole.select(np.zeros(0, np.int64)), train
    if validation is not None:
        held_out, held_out_rows = _data(validation, tasks, name), validation
    elif len(whole.rows_M) >= 100:
        first = len(whole.rows_M) * 9 // 10
        held_out, whole = whole.select(np.arange(first, len(whole.rows_M))), whole.select(np.arange(first))
    data = sampled(whole, seed=seed)
    scale = tasks.scale(name)
    if data.is_constant:
        return _mapped(scale.back, np.full(test.num_rows, data.mean)), "constant: nothing to learn"
    fitted = baseline.fit(data, held_out, held_out_rows)
    values_N = _mapped(scale.back, fitted.predict(test))
    if scale is not NATURAL and tasks.error(name).is_of_mean:
        known, rows = (held_out, held_out_rows) if len(held_out.rows_M) else (data, train)
        values_N *= _smearing(known, _mapped(scale.back, fitted.predict(rows)[known.rows_M]), scale)
    return values_N, fitted.setting


def _data(rows: RawRows, tasks: TaskSet, name: str) -> TaskData:
    """The rows of a task, its labels on the scale of its error."""
    place = tasks.names.index(name)
    rows_M = np.flatnonzero(rows.weights_NT[:, place] > 0)
    labels_M = _mapped(tasks.scale(name).to, rows.labels_NT[rows_M, place].astype(np.float64))
    return TaskData(label_kind(tasks.kinds[name]), rows_M, labels_M, np.ones(len(rows_M)))


def _smearing(known: TaskData, predicted_M: NDArray[np.float64], scale: Scale) -> float:
    """What a model that is fitted on a scale falls short of the mean by (Duan, JASA 1983); 1 where sums say nothing."""
    above = float((known.weights_M * _mapped(scale.back, known.targets_M)).sum())
    below = float((known.weights_M * predicted_M).sum())
    return above / below if above > 0 and below > 0 else 1.0


def _mapped(of: Callable[[Tensor], Tensor], values_N: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array(of(torch.from_numpy(values_N)).numpy())

"""fit_baselines(): one model per task and kind, trained on the rows of the run."""

# N rows of the test split, T tasks

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recmoe.baselines import BASELINES
from recmoe.baselines.baseline import Baseline
from recmoe.baselines.rows import RawRows
from recmoe.baselines.task_data import MAX_TRAIN_ROWS, TaskData, sampled
from recmoe.evaluation.baselines import TITLES, BaselineKind
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.regression import RegressionTaskConfig


@dataclass(frozen=True)
class FittedBaselines:
    """What the baselines say about the test rows."""

    predictions_NT: dict[BaselineKind, NDArray[np.float64]] = field(default_factory=dict)
    """Natural units: probabilities, or values in the unit of the label."""
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
    names = TaskSet(tasks).names
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
            values_N, setting = _one_task(baseline, tasks[name], place, train, validation, test, seed)
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
    task: TaskConfig,
    place: int,
    train: RawRows,
    validation: RawRows | None,
    test: RawRows,
    seed: int,
) -> tuple[NDArray[np.float64], str]:
    """predictions of the test rows in natural units, and the setting that was chosen."""
    whole = _data(train, place, task)
    held_out, held_out_rows = whole.select(np.zeros(0, np.int64)), train
    if validation is not None:
        held_out, held_out_rows = _data(validation, place, task), validation
    elif len(whole.rows_M) >= 100:
        first = len(whole.rows_M) * 9 // 10
        held_out, whole = whole.select(np.arange(first, len(whole.rows_M))), whole.select(np.arange(first))
    data = sampled(whole, seed=seed)
    if data.is_constant:
        return _natural(np.full(test.num_rows, data.mean), task), "constant: nothing to learn"
    fitted = baseline.fit(data, held_out, held_out_rows)
    return _natural(fitted.predict(test), task), fitted.setting


def _data(rows: RawRows, place: int, task: TaskConfig) -> TaskData:
    """The rows of a task, its labels on the scale of its error."""
    rows_M = np.flatnonzero(rows.weights_NT[:, place] > 0)
    labels_M = rows.labels_NT[rows_M, place].astype(np.float64)
    if isinstance(task, RegressionTaskConfig) and task.transform == "log1p":
        labels_M = np.sign(labels_M) * np.log1p(np.abs(labels_M))
    return TaskData(task.output, rows_M, labels_M, np.ones(len(rows_M)))


def _natural(values_N: NDArray[np.float64], task: TaskConfig) -> NDArray[np.float64]:
    if isinstance(task, RegressionTaskConfig) and task.transform == "log1p":
        return np.asarray(np.sign(values_N) * np.expm1(np.abs(values_N)))
    return values_N

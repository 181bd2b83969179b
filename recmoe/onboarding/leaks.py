"""find_leaks: features that know the answer, because they are outcomes or are filled only after them.

Every feature is held against every task in its space, over a bounded sample of the training rows; ``leak_rules``
decides what is suspicious.
"""

# N rows of the sample

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from recmoe.data.parquet import ParquetStream
from recmoe.errors import DataError
from recmoe.experiment import ExperimentConfig
from recmoe.features.label_values import encode_labels
from recmoe.onboarding.alone import Alone, TaskRows, alone, measure, task_rows, whether_any
from recmoe.onboarding.column_values import Bools, ColumnValues, column_values
from recmoe.onboarding.leak_rules import Evidence, Leak, judge
from recmoe.onboarding.sampled_rows import SAMPLE_ROWS, sample_rows
from recmoe.tasks.task import LabelKind


@dataclass(frozen=True)
class Told:
    """What one feature alone tells of one task."""

    feature: str
    task: str
    kind: LabelKind
    value: float | None
    """AUC within the task's space, or rank correlation of a regression; None where it is not defined."""


@dataclass(frozen=True)
class LeakReport:
    """What each feature alone tells, and what of it is suspicious."""

    num_rows: int
    """Rows looked at."""
    num_all_rows: int
    """Rows of the training split."""
    leak_auc: float
    """The config's threshold."""
    leaks: tuple[Leak, ...]
    """What is suspicious, the strongest first."""
    allowed: tuple[Leak, ...]
    """The same of features that ``data.allow_leaks`` names."""
    alone: tuple[Told, ...]
    """Every feature and task."""

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """One line per suspicious feature: what was found, with its number, and what to do."""
        by_feature: dict[str, list[Leak]] = {}
        for leak in self.leaks:
            by_feature.setdefault(leak.feature, []).append(leak)
        return tuple(_warning(leaks) for leaks in by_feature.values())

    @property
    def looked_at(self) -> str:
        """Which rows were looked at, in words."""
        if self.num_rows == self.num_all_rows:
            return f"all {self.num_rows:,} training rows"
        return f"{self.num_rows:,} of {self.num_all_rows:,} training rows, in runs from all parts"

    def refuse(self) -> None:
        """Stop where anything is suspicious.

        Raises:
            DataError: with all findings.
        """
        if self.warnings:
            count = f"{len(self.warnings)} feature{'s' if len(self.warnings) > 1 else ''}"
            lines = "".join(f"\n  {line}" for line in self.warnings)
            raise DataError(f"{count} may know the answer, and --strict was given:{lines}")

    def to_json(self) -> dict[str, Any]:
        """The report as data, with the warnings in words."""
        return {**asdict(self), "looked_at": self.looked_at, "warnings": list(self.warnings)}


def find_leaks(config: ExperimentConfig, stream: ParquetStream, *, max_rows: int = SAMPLE_ROWS) -> LeakReport:
    """Look for leaks among the features of a config.

    Args:
        stream: the training split.
        max_rows: rows to look at; of more, runs of neighbouring rows from all parts are taken.

    Raises:
        DataError, SchemaError: a row or a column is wrong, as learning the encoder would say with the file's name.
    """
    features, tasks = config.inputs.features, config.task_set()
    columns = [column.name for _, column in config.inputs.raw_columns()]
    columns += [label.column for label in tasks.label_columns]
    stream.require(columns)
    rows, is_second_N = sample_rows(stream, list(dict.fromkeys(columns)), max_rows=max_rows)
    labels_NT, weights_NT = (part.numpy() for part in tasks.targets(encode_labels(rows, tasks.label_columns)))
    values = {name: column_values(rows, name, feature) for name, feature in features.items()}
    found: list[Leak] = []
    told: list[Told] = []
    for task in task_rows(tasks, labels_NT, weights_NT):
        by_feature = {name: alone(values[name], task, is_second_N) for name in features}
        told += [Told(name, task.name, task.kind, _known(one.value)) for name, one in by_feature.items()]
        found += _judged(task, values, by_feature, is_second_N, config.data.leak_auc)
    for task in whether_any(tasks, labels_NT, weights_NT):
        found += _judged(task, values, {}, is_second_N, config.data.leak_auc)
    found.sort(key=lambda leak: -leak.value)
    allowed = set(config.data.allow_leaks)
    return LeakReport(
        num_rows=rows.num_rows,
        num_all_rows=stream.num_rows,
        leak_auc=config.data.leak_auc,
        leaks=tuple(leak for leak in found if leak.feature not in allowed),
        allowed=tuple(leak for leak in found if leak.feature in allowed),
        alone=tuple(told),
    )


def _judged(
    task: TaskRows,
    values: Mapping[str, ColumnValues],
    by_feature: Mapping[str, Alone],
    is_second_N: Bools,
    leak_auc: float,
) -> Iterator[Leak]:
    """What is suspicious of one task; without what features tell alone, only whether they are filled is looked at."""
    for name, column in values.items():
        own = by_feature.get(name)
        evidence = Evidence(
            feature=name,
            values=column,
            task=task,
            is_second_N=is_second_N,
            value=float("nan") if own is None else own.value,
            weaker=partial(_weaker, name, task, by_feature, is_second_N),
        )
        leak = judge(evidence, leak_auc=leak_auc)
        if leak is not None:
            yield leak


def _weaker(name: str, task: TaskRows, by_feature: Mapping[str, Alone], is_second_N: Bools) -> float:
    """What all features that tell less reach together, their scores added up; NaN if there are none."""
    own = by_feature[name].value
    scores = [one.score_N for one in by_feature.values() if one.value < own]
    return measure(np.sum(scores, axis=0), task, is_second_N) if scores else float("nan")


def _known(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)


_QUESTIONS = {
    "alone": "is it known only after the event?",
    "outcome": "is it an outcome itself?",
    "afterwards": "is it filled only after the event?",
}


def _warning(leaks: list[Leak]) -> str:
    """The strongest finding of a feature in words, the others by name."""
    first, name = leaks[0], leaks[0].feature
    others = ", ".join(f"{leak.task} {leak.value:.3f}" for leak in leaks[1:])
    return (
        f"inputs.features.{name}: {first.words}{f'; also {others}' if others else ''}: {_QUESTIONS[first.reason]} "
        f"Then remove it from inputs.features, or make it a task; if it is known before, add {name} to data.allow_leaks"
    )

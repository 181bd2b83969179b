"""Funnel: which label leads to which – spaces of tasks, label columns, products; TaskSet joins them for a model.

impression ──click──▶ clicked ──purchase──▶ bought         ctr    lives in all,    label click
                                                           cvr    lives in click,  label purchase
                                                           ctcvr  = ctr · cvr,     lives in all
"""

# B rows, L label columns, T tasks, T' tasks with a tower, M towers that one task reads

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from recmoe.features.labels import LabelColumn
from recmoe.tasks import TaskConfig
from recmoe.tasks.product import ProductTaskConfig
from recmoe.tasks.start import LabelSums, TaskStart
from recmoe.tasks.task import ALL_ROWS, TaskOutput

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class TaskSet:
    """The tasks of one model: what they learn from a batch, and what they predict.

    A row counts for a task where the task's space column is 1 and its label is known. A product's
    label is 1 where the label of every step is 1, and 0 as soon as one is 0, so that a row without a
    click counts as "no conversion" even where the log leaves its conversion empty.

    Args:
        tasks: the config's tasks by name; ``task_problems`` has found nothing in them.
    """

    names: tuple[str, ...]
    """T tasks, in the config's order: columns of labels_BT, weights_BT, losses_T and predictions_BT."""
    tower_names: tuple[str, ...]
    """T' tasks that have a tower, in the same order: columns of logits_BT'."""
    spaces: dict[str, str]
    """By task: ``all``, or the label column that must be 1."""
    kinds: dict[str, TaskOutput]
    """By task: whether it predicts a probability (binary) or a value (regression)."""
    weights: dict[str, float]
    """By task: the factor of its loss."""
    regression_towers: tuple[int | None, ...]
    """By task, in order: the tower of a regression, None for a task that predicts a probability."""
    label_columns: tuple[LabelColumn, ...]
    """L columns of labels_BL that ``targets`` reads, in order."""

    def __init__(self, tasks: Mapping[str, TaskConfig]) -> None:
        self.names = tuple(tasks)
        self.tower_names = tuple(name for name, task in tasks.items() if not isinstance(task, ProductTaskConfig))
        self.spaces = {name: task_space(tasks, name) for name in tasks}
        self.kinds = {name: task.output for name, task in tasks.items()}
        self.weights = {name: task.weight for name, task in tasks.items()}
        self.label_columns = label_columns(tasks)
        self._tasks = [task.build() for task in tasks.values()]
        index = {label.column: position for position, label in enumerate(self.label_columns)}
        towers = {name: position for position, name in enumerate(self.tower_names)}
        self._space_columns = [index.get(self.spaces[name]) for name in self.names]
        self._label_columns = [[index[column] for column in _step_labels(tasks, name)] for name in self.names]
        self._towers = [[towers[step] for step in _steps(tasks, name)] for name in self.names]
        self._places = [self.names.index(name) for name in self.tower_names]
        self.regression_towers = tuple(
            towers[name] if self.kinds[name] == "regression" else None for name in self.names
        )

    def targets(self, labels_BL: Tensor) -> tuple[Tensor, Tensor]:
        """What each task learns from a batch.

        Args:
            labels_BL: in the order of ``label_columns``; NaN where a label is missing.

        Returns:
            labels_BT: float32; 0 where the weight is 0.
            weights_BT: float32; 1 where the row counts for the task, 0 outside its space or without its label.
        """
        labels, weights = [], []
        for columns, space in zip(self._label_columns, self._space_columns, strict=True):
            label_B = labels_BL[:, columns[-1]]
            for column in columns[:-1]:
                earlier_B = labels_BL[:, column]
                either_is_zero_B = (earlier_B == 0) | (label_B == 0)
                # NaN unless both are 1 or one is 0: what is not known to have failed is not known.
                label_B = torch.where(either_is_zero_B, torch.zeros_like(label_B), earlier_B * label_B)
            counts_B = ~torch.isnan(label_B)
            if space is not None:
                counts_B = counts_B & (labels_BL[:, space] == 1)
            labels.append(torch.where(counts_B, label_B, torch.zeros_like(label_B)))
            weights.append(counts_B)
        return torch.stack(labels, dim=1), torch.stack(weights, dim=1).to(labels_BL.dtype)

    def label_sums(self, labels_BL: Tensor) -> LabelSums:
        """Counts and sums of the labels of a batch, per tower; ``starts`` makes of them where training begins."""
        labels_BT, weights_BT = self.targets(labels_BL)
        targets_BT = torch.stack([self._tasks[place].target(labels_BT[:, place]) for place in self._places], dim=1)
        return LabelSums.of(targets_BT, weights_BT[:, self._places])

    def starts(self, sums: LabelSums) -> list[TaskStart]:
        """One per tower: what predicts its label best without looking at a row."""
        return [
            sums.value_start(tower) if self.kinds[name] == "regression" else sums.binary_start(tower)
            for tower, name in enumerate(self.tower_names)
        ]

    def losses(self, logits_BT: Tensor, labels_BT: Tensor, weights_BT: Tensor) -> Tensor:
        """losses_T: Σ over rows of weight · loss, divided by B.

        The divisor is the batch size, not the number of rows that count: so a row weighs the same
        whatever its neighbours are.

        Args:
            logits_BT: one column per tower.
            labels_BT: from ``targets``.
            weights_BT: from ``targets``.
        """
        losses_BT = torch.stack(
            [
                task.losses(self._logits_of(towers, logits_BT), labels_BT[:, position])
                for position, (task, towers) in enumerate(zip(self._tasks, self._towers, strict=True))
            ],
            dim=1,
        )
        return (weights_BT * losses_BT).sum(dim=0) / logits_BT.shape[0]

    def predict(self, logits_BT: Tensor) -> Tensor:
        """predictions_BT of all tasks from one logit per tower: probabilities, or values in the label's unit."""
        return torch.stack(
            [
                task.predict(self._logits_of(towers, logits_BT))
                for task, towers in zip(self._tasks, self._towers, strict=True)
            ],
            dim=1,
        )

    def _logits_of(self, towers: Sequence[int], logits_BT: Tensor) -> Tensor:
        # Slices, not an index tensor: that would have to be copied to the device for every batch.
        return torch.stack([logits_BT[:, tower] for tower in towers], dim=1)


def task_space(tasks: Mapping[str, TaskConfig], name: str) -> str:
    """Space of a task: its own, or that of the first step of a product."""
    task = tasks[_steps(tasks, name)[0]]
    assert not isinstance(task, ProductTaskConfig)
    return task.space or ALL_ROWS


def label_columns(tasks: Mapping[str, TaskConfig]) -> tuple[LabelColumn, ...]:
    """Columns that hold the labels and spaces of the tasks, each once, in the order of their first mention.

    A label of a space implies the space's column, unless every task on it ignores what lies outside.
    """
    is_binary: dict[str, bool] = {}
    implies: dict[str, list[str]] = {}
    for name, task in tasks.items():
        if isinstance(task, ProductTaskConfig):
            is_binary.update(dict.fromkeys(_step_labels(tasks, name), True))
            continue
        is_binary[task.label] = is_binary.get(task.label, False) or task.output == "binary"
        if task.space is not None:
            is_binary[task.space] = True
            if task.outside_space == "error":
                implies.setdefault(task.label, []).append(task.space)
    return tuple(
        LabelColumn(column=column, is_binary=binary, implies=_innermost(implies, column))
        for column, binary in is_binary.items()
    )


def task_problems(tasks: Mapping[str, TaskConfig]) -> Iterator[tuple[str, str]]:
    """What does not fit together between tasks, as (key path below ``tasks``, message); "" is the section itself."""
    if not tasks:
        yield "", "at least one task is needed"
        return
    for name in tasks:
        if not _NAME.fullmatch(name):
            yield name, f"task name {name!r}: use letters, digits, _ and -, beginning with a letter or _"
    product_problems = [problem for name in tasks for problem in _product_problems(tasks, name)]
    yield from product_problems
    if product_problems:
        return
    yield from _space_problems(tasks)
    yield from _chain_problems(tasks)
    if all(task.weight == 0 for task in tasks.values()):
        yield "", "every task has weight 0, so there is nothing to learn; give at least one a weight above 0"


def _steps(tasks: Mapping[str, TaskConfig], name: str) -> list[str]:
    """Tasks with towers that a task multiplies, products inside products taken apart; itself if it is none."""
    task = tasks[name]
    if not isinstance(task, ProductTaskConfig):
        return [name]
    return [step for factor in task.of for step in _steps(tasks, factor)]


def _step_labels(tasks: Mapping[str, TaskConfig], name: str) -> list[str]:
    """Label columns that must all be 1 for a task's label to be 1, in the order of the funnel."""
    task = tasks[name]
    if not isinstance(task, ProductTaskConfig):
        return [task.label]
    labels = [label for factor in task.of for label in _step_labels(tasks, factor)]
    return labels if task.label is None else [*labels[:-1], task.label]


def _innermost(implies: Mapping[str, Sequence[str]], column: str) -> str | None:
    """Of the columns that a label implies, the one that implies all the others."""
    spaces = implies.get(column, ())
    for space in spaces:
        if set(spaces) <= _closure(implies, space):
            return space
    return spaces[0] if spaces else None


def _closure(implies: Mapping[str, Sequence[str]], column: str) -> set[str]:
    """A column and everything it implies, directly or not."""
    found: set[str] = set()
    waiting = [column]
    while waiting:
        column = waiting.pop()
        if column not in found:
            found.add(column)
            waiting += implies.get(column, ())
    return found


def _product_problems(tasks: Mapping[str, TaskConfig], name: str) -> Iterator[tuple[str, str]]:
    task = tasks[name]
    if not isinstance(task, ProductTaskConfig):
        return
    path = f"{name}.of"
    for factor in task.of:
        if factor not in tasks:
            yield path, f"no such task: {factor}{_did_you_mean(factor, tasks)}"
        elif tasks[factor].output != "binary":
            yield path, f"{factor} is a {tasks[factor].kind} task; only probabilities can be multiplied"
        elif _leads_to(tasks, factor, name):
            yield path, f"{name} contains itself through {factor}; a product is made of other tasks"


def _leads_to(tasks: Mapping[str, TaskConfig], start: str, goal: str) -> bool:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name == goal:
            return True
        task = tasks.get(name)
        if name not in seen and isinstance(task, ProductTaskConfig):
            waiting += task.of
        seen.add(name)
    return False


def _space_problems(tasks: Mapping[str, TaskConfig]) -> Iterator[tuple[str, str]]:
    """Spaces that are not the label of a binary task, or that a label cannot lie in."""
    with_towers = {name: task for name, task in tasks.items() if not isinstance(task, ProductTaskConfig)}
    binary = {task.label for task in with_towers.values() if task.output == "binary"}
    implies: dict[str, list[str]] = {}
    for task in with_towers.values():
        if task.space is not None and task.outside_space == "error":
            implies.setdefault(task.label, []).append(task.space)
    for name, task in with_towers.items():
        path = f"{name}.space"
        if task.space is None:
            continue
        if task.space == task.label:
            yield path, f"is the task's own label {task.label}, which would always be 1 there; leave the space out"
        elif task.space not in binary:
            hint = _did_you_mean(task.space, binary)
            yield path, f"{task.space} is not the label of a binary task{hint}; add such a task (weight: 0 will do)"
        elif task.label in _closure(implies, task.space):
            yield path, f"{task.space} itself lies inside {task.label}; spaces must not go in a circle"
        elif not set(implies.get(task.label, ())) <= _closure(implies, _innermost(implies, task.label) or ""):
            yield (
                path,
                (
                    f"label {task.label} lies in spaces of which none contains the others "
                    f"({', '.join(implies[task.label])}); set outside_space: ignore where it may leave the space"
                ),
            )


def _chain_problems(tasks: Mapping[str, TaskConfig]) -> Iterator[tuple[str, str]]:
    """Products whose factors do not follow each other: p(a) · p(b) is only p(a and b) where b is learnt within a."""
    for name, task in tasks.items():
        if not isinstance(task, ProductTaskConfig):
            continue
        for before, after in zip(task.of, task.of[1:], strict=False):
            label = _step_labels(tasks, before)[-1]
            space = task_space(tasks, after)
            if space != label:
                yield (
                    f"{name}.of",
                    (
                        f"{after} lives in {space}, but follows {before}, so it must live in {label}: "
                        f"a probability is multiplied by one that is learnt where its label is 1"
                    ),
                )


def _did_you_mean(name: str, known: Mapping[str, object] | set[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f", did you mean {near[0]}?" if near else f" (there are {', '.join(sorted(known)) or 'none'})"

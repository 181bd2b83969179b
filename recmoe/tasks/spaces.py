"""Spaces: which label each task learns, and which other label must be 1 for its rows to count.

A space names a binary task, or its label column where only one label is made of that column::

    like: {kind: binary, label: rating, positive: {at_least: 4}}                 all rows
    love: {kind: binary, label: rating, positive: {at_least: 5}, space: like}    rows with a rating of 4 or 5
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from recmoe.features.labels import LabelColumn
from recmoe.tasks import TaskConfig
from recmoe.tasks.task import ALL_ROWS


def task_space(tasks: Mapping[str, TaskConfig], name: str) -> str:
    """Space of a task: its own, or that of the first step of a product."""
    return tasks[steps_of(tasks, name)[0]].space or ALL_ROWS


def rows_of(tasks: Mapping[str, TaskConfig], name: str) -> str:
    """The rows that count for a task, in words: ``all``, ``click``, ``click & reported``."""
    available = available_columns(tasks, name)
    space = task_space(tasks, name)
    return " & ".join([*([] if space == ALL_ROWS and available else [space]), *available])


def available_columns(tasks: Mapping[str, TaskConfig], name: str) -> tuple[str, ...]:
    """Columns that must all be 1 for a task's rows, beside its space; of a product, those of all its steps.

    A row without a click has no conversion, whatever is reported; but of rows that are not reported only those
    without a click would count, and make a product too small.
    """
    found = (tasks[step].available for step in steps_of(tasks, name))
    return tuple(dict.fromkeys(column for column in found if column is not None))


def outcome_columns(tasks: Mapping[str, TaskConfig]) -> set[str]:
    """Columns that hold what is to be predicted: no feature may read them."""
    return {label.column for task in tasks.values() if (label := task.label_column()) is not None}


def label_columns(tasks: Mapping[str, TaskConfig]) -> tuple[LabelColumn, ...]:
    """The labels, spaces and availabilities of the tasks, each once, in the order of their first mention.

    A label of a space implies the space's label, unless every task on it ignores what lies outside.
    """
    found: dict[str, LabelColumn] = {}

    def mention(label: LabelColumn) -> None:
        known = found.setdefault(label.name, label)
        # The strictest of the tasks on a column says what it may hold.
        if label.is_binary and not known.is_binary:
            found[label.name] = label
        elif label.is_amount and not known.is_binary:
            found[label.name] = replace(known, is_amount=True)

    for name, task in tasks.items():
        if task.factors:
            steps = [own_label(tasks, step) for step in steps_of(tasks, name)]
            last = task.label_column()
            for label in steps if last is None else [*steps[:-1], last]:
                mention(replace(label, is_binary=True))
            continue
        mention(own_label(tasks, name))
        owner = None if task.space is None else space_task(tasks, task.space)
        if owner is not None:
            mention(own_label(tasks, owner))
    # Last, so that the labels of a config stay where they are when it names an availability.
    for name in tasks:
        for column in available_columns(tasks, name):
            mention(LabelColumn(column, is_binary=True))
    implies = implications(tasks)
    return tuple(replace(label, implies=innermost(implies, name)) for name, label in found.items())


def steps_of(tasks: Mapping[str, TaskConfig], name: str) -> list[str]:
    """Tasks with towers that a task multiplies, products inside products taken apart; itself if it is none."""
    factors = tasks[name].factors
    return [step for factor in factors for step in steps_of(tasks, factor)] if factors else [name]


def step_labels(tasks: Mapping[str, TaskConfig], name: str) -> list[str]:
    """Labels that must all be 1 for a task's label to be 1, in the order of the funnel."""
    task = tasks[name]
    if not task.factors:
        return [own_label(tasks, name).name]
    labels = [label for factor in task.factors for label in step_labels(tasks, factor)]
    last = task.label_column()
    return labels if last is None else [*labels[:-1], last.name]


def own_label(tasks: Mapping[str, TaskConfig], name: str) -> LabelColumn:
    """The label of a task with a tower."""
    label = tasks[name].label_column()
    assert label is not None, f"{name} has no tower"
    return label


def learns_space(task: TaskConfig) -> bool:
    """Whether a task predicts the probability of a label of its own, which other tasks may live in."""
    return task.output == "binary" and not task.factors


def space_owners(tasks: Mapping[str, TaskConfig], space: str) -> dict[str, str]:
    """Labels that a space may mean, each with a binary task that learns it: by the task's name or its label column."""
    owners: dict[str, str] = {}
    for name, task in tasks.items():
        if learns_space(task) and space in (name, task.label):
            owners.setdefault(own_label(tasks, name).name, name)
    return owners


def space_task(tasks: Mapping[str, TaskConfig], space: str) -> str | None:
    """The binary task whose label a space is; None if there is none, or several."""
    named = tasks.get(space)
    owners = space_owners(tasks, space)
    if len(owners) > 1 and named is not None and learns_space(named) and named.label == space:
        return space
    return next(iter(owners.values())) if len(owners) == 1 else None


def space_label(tasks: Mapping[str, TaskConfig], name: str) -> str | None:
    """Name of the label that must be 1 for a task's rows; None where all rows count."""
    space = task_space(tasks, name)
    owner = None if space == ALL_ROWS else space_task(tasks, space)
    return None if owner is None else own_label(tasks, owner).name


def implications(tasks: Mapping[str, TaskConfig]) -> dict[str, list[str]]:
    """Labels that must be 1 where another one is, by the name of that one."""
    implies: dict[str, list[str]] = {}
    for name, task in tasks.items():
        if task.space is not None and task.outside_space == "error":
            owner = space_task(tasks, task.space)
            if owner is not None:
                implies.setdefault(own_label(tasks, name).name, []).append(own_label(tasks, owner).name)
    return implies


def innermost(implies: Mapping[str, Sequence[str]], label: str) -> str | None:
    """Of the labels that a label implies, the one that implies all the others."""
    spaces = implies.get(label, ())
    for space in spaces:
        if set(spaces) <= closure(implies, space):
            return space
    return spaces[0] if spaces else None


def closure(implies: Mapping[str, Sequence[str]], label: str) -> set[str]:
    """A label and everything it implies, directly or not."""
    found: set[str] = set()
    waiting = [label]
    while waiting:
        label = waiting.pop()
        if label not in found:
            found.add(label)
            waiting += implies.get(label, ())
    return found

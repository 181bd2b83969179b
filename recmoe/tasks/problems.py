"""task_problems: what does not fit together between the tasks of a config."""

import difflib
import unicodedata
from collections.abc import Iterator, Mapping

from recmoe.tasks import TaskConfig
from recmoe.tasks.spaces import (
    closure,
    implications,
    innermost,
    learns_space,
    own_label,
    space_label,
    space_owners,
    space_task,
    step_labels,
    steps_of,
    task_space,
)


def task_problems(tasks: Mapping[str, TaskConfig]) -> Iterator[tuple[str, str]]:
    """What does not fit together between tasks, as (key path below ``tasks``, message); "" is the section itself."""
    if not tasks:
        yield "", "at least one task is needed"
        return
    yield from _name_problems(tasks)
    product_problems = [problem for name in tasks for problem in _product_problems(tasks, name)]
    yield from product_problems
    if product_problems:
        return
    yield from _space_problems(tasks)
    yield from _available_problems(tasks)
    yield from _chain_problems(tasks)
    if all(task.weight == 0 for task in tasks.values()):
        yield "", "every task has weight 0, so there is nothing to learn; give at least one a weight above 0"


def _name_problems(tasks: Mapping[str, TaskConfig]) -> Iterator[tuple[str, str]]:
    written: dict[str, str] = {}
    for name in tasks:
        # Formulas read names as Python does, in the form NFKC.
        if not name.replace("-", "_").isidentifier():
            yield name, f"task name {name!r}: use letters of any script, digits, _ and -, beginning with a letter or _"
        elif (first := written.setdefault(unicodedata.normalize("NFKC", name), name)) != name:
            yield name, f"task name {name!r} is {first!r} in other forms of the same letters; choose another"


def _product_problems(tasks: Mapping[str, TaskConfig], name: str) -> Iterator[tuple[str, str]]:
    path = f"{name}.of"
    for factor in tasks[name].factors:
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
        if name not in seen and task is not None:
            waiting += task.factors
        seen.add(name)
    return False


def _space_problems(tasks: Mapping[str, TaskConfig]) -> Iterator[tuple[str, str]]:
    """Spaces that are not the label of one binary task, or that a label cannot lie in."""
    binary = {part for name, task in tasks.items() if learns_space(task) for part in (name, task.label or name)}
    implies = implications(tasks)
    for name, task in tasks.items():
        path = f"{name}.space"
        if task.space is None:
            continue
        label, owner = own_label(tasks, name).name, space_task(tasks, task.space)
        if owner is None:
            owners = space_owners(tasks, task.space)
            if owners:
                yield path, f"{task.space} may be {' or '.join(owners)}; name the task: {' or '.join(owners.values())}"
            else:
                hint = _did_you_mean(task.space, binary)
                yield path, f"{task.space} is not the label of a binary task{hint}; add such a task (weight: 0 will do)"
            continue
        space = own_label(tasks, owner).name
        if space == label:
            yield path, f"is the task's own label {label}, which would always be 1 there; leave the space out"
        elif label in closure(implies, space):
            yield path, f"{space} itself lies inside {label}; spaces must not go in a circle"
        elif not set(implies.get(label, ())) <= closure(implies, innermost(implies, label) or ""):
            yield (
                path,
                (
                    f"label {label} lies in spaces of which none contains the others "
                    f"({', '.join(implies[label])}); set outside_space: ignore where it may leave the space"
                ),
            )


def _available_problems(tasks: Mapping[str, TaskConfig]) -> Iterator[tuple[str, str]]:
    for name, task in tasks.items():
        if task.available is not None and task.available == own_label(tasks, name).column:
            yield f"{name}.available", f"{task.available} is the task's own label, which would always be 1 there"


def _chain_problems(tasks: Mapping[str, TaskConfig]) -> Iterator[tuple[str, str]]:
    """Products whose factors do not follow each other: p(a) · p(b) is only p(a and b) where b is learnt within a."""
    for name, task in tasks.items():
        for before, after in zip(task.factors, task.factors[1:], strict=False):
            label = step_labels(tasks, before)[-1]
            if space_label(tasks, steps_of(tasks, after)[0]) != label:
                yield (
                    f"{name}.of",
                    (
                        f"{after} lives in {task_space(tasks, after)}, but follows {before}, so it must live in "
                        f"{label}: a probability is multiplied by one that is learnt where its label is 1"
                    ),
                )


def _did_you_mean(name: str, known: Mapping[str, object] | set[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f", did you mean {near[0]}?" if near else f" (there are {', '.join(sorted(known)) or 'none'})"

"""choose_tasks: a starter config with the tasks that the user names in place of all that were found."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from recmoe.errors import ConfigError
from recmoe.evaluation.skill import SCORE
from recmoe.tasks import TASK_KINDS
from recmoe.tasks.task import TaskOutput, has_binary_label

TaskChoice = Sequence[str] | Mapping[str, Mapping[str, Any]]
"""Outcomes by column (``click``, ``rating>=4``) or task, or a section ``tasks`` as in a config."""

_SIGN = re.compile(r"\s*(?:>=|>|=)\s*")


def outcome_columns(tasks: TaskChoice) -> list[str]:
    """The outcomes as ``starter_config`` takes them.

    Raises:
        ConfigError: there are none, or one text in place of a list.
    """
    if isinstance(tasks, str) or not tasks:
        raise ConfigError(f"tasks: expected a list of columns or a mapping of tasks, got {tasks!r}")
    if isinstance(tasks, Mapping):
        return list(dict.fromkeys(_outcome(task) for task in tasks.values() if "label" in task))
    return list(tasks)


def choose_tasks(document: dict[str, Any], tasks: TaskChoice) -> None:
    """Leave only the chosen tasks, and those that they need, in a config; what named others names one of them."""
    found: dict[str, dict[str, Any]] = document["tasks"]
    if isinstance(tasks, Mapping):
        chosen = {name: dict(task) for name, task in tasks.items()}
    else:
        chosen = _with_needed(found, {name for name, task in found.items() if _is_asked(name, task, tasks)})
    document["tasks"] = chosen
    gone = set(found) - set(chosen)
    whole = [name for name, task in chosen.items() if task.get("space") is None]
    main = whole[-1] if whole else next(iter(chosen))
    ranking = document.get("ranking") or {}
    if ranking.get("default") in gone:
        ranking["default"] = main
    stopping = (document.get("training") or {}).get("early_stopping") or {}
    if str(stopping.get("metric", "")).partition(".")[0] in gone:
        stopping["metric"] = _stopping_metric(main, chosen[main])


def _stopping_metric(name: str, task: Mapping[str, Any]) -> str:
    """AUC or RMSE of a task; where it has neither, or rows of its own, the mean over all tasks."""
    output: TaskOutput = next(
        (kind.output for kind in TASK_KINDS if kind.model_fields["kind"].default == task.get("kind")), "binary"
    )
    if output == "quantile" or task.get("available") is not None:
        return SCORE
    return f"{name}.{'auc' if has_binary_label(output) else 'rmse'}[{task.get('space') or 'all'}]"


def _outcome(task: Mapping[str, Any]) -> str:
    """The outcome of a task in the words of ``init``."""
    positive = task.get("positive")
    if isinstance(positive, Mapping):
        (word, threshold), *_ = positive.items()
        return f"{task['label']}{'>' if word == 'above' else '>='}{threshold}"
    if isinstance(positive, Sequence) and not isinstance(positive, str):
        positive = positive[0] if positive else None
    return str(task["label"]) if positive is None else f"{task['label']}={positive}"


def _is_asked(name: str, task: Mapping[str, Any], asked: Sequence[str]) -> bool:
    for text in asked:
        if text in (name, task.get("label")):
            return True
        column = _SIGN.split(text, maxsplit=1)[0]
        if column != text and column == task.get("label") and "positive" in task:
            return True
    return False


def _with_needed(found: Mapping[str, dict[str, Any]], names: set[str]) -> dict[str, dict[str, Any]]:
    """Tasks, those in whose space they live, and the products of what is then there."""
    while True:
        spaces = {found[name].get("space") for name in names} - {None}
        members = {member for name in names for member in found[name].get("of", ())}
        needed = (
            names | members | {name for name, task in found.items() if name in spaces or task.get("label") in spaces}
        )
        needed |= {name for name, task in found.items() if "of" in task and set(task["of"]) <= needed}
        if needed == names:
            return {name: task for name, task in found.items() if name in names}
        names = needed

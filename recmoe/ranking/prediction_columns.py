"""Names of the columns that predictions are written under, in files and by MLflow."""

from collections.abc import Collection, Mapping, Sequence

KEPT_PREFIX = "log_"
"""Before the name of a column of the log that is named like a prediction: the label ``click`` beside the task."""


def score_column(task_names: Sequence[str]) -> str:
    """Where the score goes: ``score``, and ``ranking_score`` where a task is called that."""
    return _free("score", task_names, prefix="ranking_")


def item_column(task_names: Sequence[str]) -> str:
    """Where an item's id goes: ``item_id``, and ``ranked_item_id`` where a task is called that."""
    return _free("item_id", task_names, prefix="ranked_")


def order_column(task_names: Sequence[str]) -> str:
    """Where positions by falling score go: ``order``, and ``ranking_order`` where a task is called that."""
    return _free("order", task_names, prefix="ranking_")


def explanation_column(task_names: Sequence[str]) -> str:
    """Where explanations go: ``explanation``, and ``ranking_explanation`` where a task is called that."""
    return _free("explanation", task_names, prefix="ranking_")


def kept_columns(keep: Sequence[str], made: Collection[str]) -> Mapping[str, str]:
    """Names in the file of columns that are copied from a log, by their names there; those of ``made`` are taken."""
    taken = {*made, *(name for name in keep if name not in made)}
    names: dict[str, str] = {}
    for name in dict.fromkeys(keep):
        names[name] = name if name not in made else _free(KEPT_PREFIX + name, taken, prefix=KEPT_PREFIX)
        taken.add(names[name])
    return names


def _free(name: str, taken: Collection[str], *, prefix: str) -> str:
    while name in taken:
        name = prefix + name
    return name

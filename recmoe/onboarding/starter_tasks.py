"""starter_tasks: each outcome of a log as a task, and each chain of outcomes as a product over all rows."""

from collections.abc import Mapping
from dataclasses import dataclass

from recmoe.onboarding.column_names import feature_name
from recmoe.onboarding.profile import LogProfile
from recmoe.onboarding.roles import LabelRole, Roles
from recmoe.onboarding.yaml_text import flow, quoted

RARE_RATE = 0.01


@dataclass(frozen=True)
class Task:
    """One entry of the section ``tasks``."""

    name: str
    text: str
    note: str
    depth: int
    """Outcomes that must happen for this one."""
    num_positive: int
    is_binary: bool
    space: str


def starter_tasks(log: LogProfile, roles: Roles) -> list[Task]:
    """The entries of the section ``tasks``, in the order of the log's columns."""
    names = _task_names(roles)
    # Only what holds a no and a yes can be a space.
    by_column = {label.column: label for label in roles.labels if label.kind == "binary" and label.name is None}
    tasks: list[Task] = []
    for label, name in zip(roles.labels, names, strict=True):
        chain = _chain(label, by_column)
        steps = [*(names[roles.labels.index(by_column[column])] for column in chain), name]
        if label.kind == "regression":
            tasks.append(_regression(log, label, name, steps))
            continue
        tasks.append(_binary(log, label, name, steps))
        if chain:
            column = log.columns[label.column]
            tasks.append(
                Task(
                    name=_free("_and_".join(steps), [*names, *(task.name for task in tasks)]),
                    text=f"{{kind: product, of: [{', '.join(map(quoted, steps))}]}}",
                    note=f"{column.rate:.2%} of all rows: the chain multiplied, trained over all rows (ESMM)",
                    depth=len(steps),
                    num_positive=column.num_positive,
                    is_binary=True,
                    space="all",
                )
            )
    return tasks


def _binary(log: LogProfile, label: LabelRole, name: str, steps: list[str]) -> Task:
    column = log.columns[label.column]
    num_positive = column.num_positive if label.num_positive is None else label.num_positive
    parent = log.columns[label.space].num_positive if label.space else column.num_rows - column.num_nulls
    where = "of all rows" if not column.num_nulls else f"of the rows that have a {label.column}"
    where = f"of the rows with {label.space}" if label.space else where
    is_rare = num_positive < RARE_RATE * max(column.num_rows - column.num_nulls, 1)
    parts = [f"{num_positive / max(parent, 1):.2%} {where}"]
    parts += [f"rare: {num_positive:,} in all"] if is_rare else []
    parts += [label.note] if label.note else []
    positive = "" if label.positive is None else f", positive: {flow(label.positive)}"
    return Task(
        name=name,
        text=f"{{kind: binary, label: {quoted(label.column)}{positive}{_space(steps)}}}",
        note="; ".join(parts),
        depth=len(steps),
        num_positive=num_positive,
        is_binary=True,
        space=label.space or "all",
    )


def _regression(log: LogProfile, label: LabelRole, name: str, steps: list[str]) -> Task:
    column = log.columns[label.column]
    # A squared error in large units would drown the other tasks.
    is_compressed = label.is_compressed or (column.high or 0.0) > 20
    transform = ", transform: log1p" if is_compressed else ""
    return Task(
        name=name,
        text=f"{{kind: regression, label: {quoted(label.column)}{_space(steps)}{transform}}}",
        note=f"{column.low:.6g} to {column.high:.6g}" + (f", only where {label.space} is 1" if label.space else ""),
        depth=len(steps),
        num_positive=column.num_positive,
        is_binary=False,
        space=label.space or "all",
    )


def _space(steps: list[str]) -> str:
    return f", space: {quoted(steps[-2])}" if len(steps) > 1 else ""


def _chain(label: LabelRole, by_column: Mapping[str, LabelRole]) -> list[str]:
    """The outcomes that must happen before this one, in order."""
    chain: list[str] = []
    space = label.space
    while space is not None:
        chain.insert(0, space)
        space = by_column[space].space
    return chain


def _task_names(roles: Roles) -> list[str]:
    """A different name for each label, which is not the column of another one: a space may be called by either."""
    names: list[str] = []
    for label in roles.labels:
        name = label.name or feature_name(label.column)
        name = name if name.isidentifier() else f"_{name}"
        others = [other.column for other in roles.labels if other.column != label.column]
        names.append(_free(name, [*names, *others, "all"]))
    return names


def _free(name: str, taken: list[str]) -> str:
    while name in taken:
        name += "_"
    return name

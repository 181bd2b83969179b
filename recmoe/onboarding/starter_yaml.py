"""starter_yaml: the text of a starter config, each choice with its reason."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recmoe.data.splits import Split
from recmoe.onboarding import recipe
from recmoe.onboarding.column_names import feature_name
from recmoe.onboarding.profile import LogProfile
from recmoe.onboarding.roles import FeatureRole, LabelRole, Roles

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


def starter_yaml(log: LogProfile, roles: Roles, num_rows: Mapping[Split, int], *, split_note: str, name: str) -> str:
    """The config file as text."""
    tasks = _tasks(log, roles)
    stopping = max(
        (task for task in tasks if task.space == "all"), key=lambda task: (task.is_binary, task.num_positive)
    )
    score = max((task for task in tasks if task.space == "all"), key=lambda task: (task.depth, task.num_positive))
    metric = "auc" if stopping.is_binary else "rmse"
    num_train = num_rows["train"]
    lines = [
        f"# Starter config, made from {log.num_rows:,} rows. It trains as it stands; look at every guess below.",
        f"name: {_quoted(feature_name(name))}",
        "seed: 0",
        "",
        f"# Split {split_note}: " + ", ".join(f"{rows:,} rows for {split}" for split, rows in num_rows.items()) + ".",
        "data:",
        '  train: ["${here}/train.parquet"]',
        '  validation: ["${here}/validation.parquet"]',
        '  test: ["${here}/test.parquet"]',
        "",
        *_inputs(log, roles, num_train),
        "",
        "# What is predicted. `space: click` means: learnt and measured only where click is 1.",
        "tasks:",
        *_aligned([(f"  {task.name}: {task.text}", task.note) for task in tasks]),
        "",
        *recipe.model_lines(num_train),
        "",
        *recipe.tables_lines(),
        "",
        *recipe.training_lines(num_train, f"{stopping.name}.{metric}[all]"),
        "",
        "evaluation:",
        "  # Columns; every metric is also given per value.",
        f"  slices: [{', '.join(_quoted(column) for column in _slices(log, roles))}]",
        "  num_resamples: 200    # For the 95 % intervals.",
        "",
        "# What a list is sorted by: arithmetic over tasks, such as click + 5 * purchase.",
        "ranking:",
        f"  scores: {{default: {json.dumps(score.name)}}}",
    ]
    return "\n".join(lines) + "\n"


def _inputs(log: LogProfile, roles: Roles, num_train: int) -> list[str]:
    lines = [
        "inputs:",
        f"  width: {recipe.width(num_train)}    # Floats per row of a table.",
    ]
    if roles.group is not None:
        what = "one list" if roles.is_group_a_list else "one user: the log has no lists"
        lines.append(f"  group: {_quoted(roles.group)}    # Rows of {what}; for NDCG, MRR and AUC per group.")
    else:
        lines.append(
            "  # group: the column that joins the rows of one list, for NDCG, MRR and AUC per list; none was found."
        )
    if roles.item is not None:
        lines.append(f"  item: {_quoted(roles.item)}    # Names a candidate in requests and responses.")
    else:
        lines.append("  # item: the column that names a candidate in requests and responses; none was found.")
    lines.append("  # side: a ranking request carries user and context once, item for each candidate.")
    lines.append("  features:")
    names = _feature_names(roles)
    entries = [
        (f"    {_quoted(names[feature.column])}: {_feature(log, feature, names)}", _feature_note(log, feature))
        for feature in roles.features
    ]
    lines += _aligned(entries)
    if roles.left_out:
        lines.append("  # Left out:")
        lines += [f"  #   {column}: {reason}" for column, reason in roles.left_out.items()]
    return lines


def _feature_names(roles: Roles) -> dict[str, str]:
    """A different name for each column that is a feature."""
    names: dict[str, str] = {}
    for feature in roles.features:
        name = feature_name(feature.column)
        while name in names.values():
            name += "_"
        names[feature.column] = name
    return names


def _feature(log: LogProfile, feature: FeatureRole, names: Mapping[str, str]) -> str:
    parts = [f"kind: {feature.kind}", f"side: {feature.side}"]
    if names[feature.column] != feature.column:
        parts.insert(1, f"column: {json.dumps(feature.column)}")
    if feature.kind == "numeric":
        if feature.is_compressed:
            parts.append("log1p: true")
        parts.append("forms: [value, bucket]")
    else:
        if feature.separator is not None:
            parts.append(f"separator: {json.dumps(feature.separator)}")
        if feature.kind == "id_list":
            parts.append("pooling: mean")
        if feature.table is not None:
            parts.append(f"table: {_quoted(names[feature.table])}")
        num_distinct = log.columns[feature.table or feature.column].num_distinct
        min_count = recipe.min_count(num_distinct)
        if min_count > 1:
            parts.append(f"encoding: {{kind: vocabulary, min_count: {min_count}}}")
    return "{" + ", ".join(parts) + "}"


def _feature_note(log: LogProfile, feature: FeatureRole) -> str:
    column = log.columns[feature.column]
    nulls = f", {column.num_nulls / column.num_rows:.1%} missing" if column.num_nulls else ""
    if feature.table is not None:
        note = f"ids of {feature.table}{nulls}"
    elif feature.kind == "numeric":
        note = f"{column.low:.6g} to {column.high:.6g}{nulls}"
    elif feature.separator is not None:
        note = f"{column.num_distinct:,} lists{nulls}"
    else:
        note = f"{column.num_distinct:,} values{nulls}"
    return f"{note}; {feature.note}" if feature.note else note


def _tasks(log: LogProfile, roles: Roles) -> list[Task]:
    """Each label as a task, and each chain of outcomes as a product over all rows."""
    names = {label.column: _unique(feature_name(label.column)) for label in roles.labels}
    by_column = {label.column: label for label in roles.labels}
    tasks = []
    for label in roles.labels:
        column = log.columns[label.column]
        chain = _chain(label, by_column)
        if label.kind == "regression":
            tasks.append(_regression(log, label, names[label.column], len(chain)))
            continue
        parent = log.columns[label.space].num_positive if label.space else column.num_rows - column.num_nulls
        rate = column.num_positive / max(parent, 1)
        where = f"of the rows with {label.space}" if label.space else "of all rows"
        rare = f"; rare: {column.num_positive:,} in all" if column.rate < RARE_RATE else ""
        space = f", space: {_quoted(label.space)}" if label.space else ""
        tasks.append(
            Task(
                name=names[label.column],
                text=f"{{kind: binary, label: {_quoted(label.column)}{space}}}",
                note=f"{rate:.2%} {where}{rare}" + (f"; {label.note}" if label.note else ""),
                depth=len(chain),
                num_positive=column.num_positive,
                is_binary=True,
                space=label.space or "all",
            )
        )
        if label.space:
            members = ", ".join(names[member] for member in chain)
            tasks.append(
                Task(
                    name="_and_".join(names[member] for member in chain),
                    text=f"{{kind: product, of: [{members}], label: {_quoted(label.column)}}}",
                    note=f"{column.rate:.2%} of all rows: the chain multiplied, trained over all rows (ESMM)",
                    depth=len(chain),
                    num_positive=column.num_positive,
                    is_binary=True,
                    space="all",
                )
            )
    return tasks


def _regression(log: LogProfile, label: LabelRole, name: str, depth: int) -> Task:
    column = log.columns[label.column]
    # A squared error in large units would drown the other tasks.
    is_compressed = label.is_compressed or (column.high or 0.0) > 20
    transform = ", transform: log1p" if is_compressed else ""
    space = f", space: {_quoted(label.space)}" if label.space else ""
    return Task(
        name=name,
        text=f"{{kind: regression, label: {_quoted(label.column)}{space}{transform}, weight: 0.2}}",
        note=f"{column.low:.6g} to {column.high:.6g}" + (f", only where {label.space} is 1" if label.space else ""),
        depth=depth,
        num_positive=column.num_positive,
        is_binary=False,
        space=label.space or "all",
    )


def _chain(label: LabelRole, by_column: Mapping[str, LabelRole]) -> list[str]:
    """The outcomes that must happen up to this one, in order."""
    chain = [label.column]
    while (space := by_column[chain[0]].space) is not None:
        chain.insert(0, space)
    return chain


def _slices(log: LogProfile, roles: Roles) -> list[str]:
    """Up to two columns with few values, those of the user or the context first."""
    few = [
        feature
        for feature in roles.features
        if feature.kind == "id" and 2 <= log.columns[feature.column].num_distinct <= 12
    ]
    few.sort(key=lambda feature: feature.side == "item")
    return [feature.column for feature in few[:2]]


def _aligned(entries: Sequence[tuple[str, str]]) -> list[str]:
    width = min(max((len(text) for text, _ in entries), default=0), 90)
    return [f"{text:<{width}}  # {note}" if note else text for text, note in entries]


def _unique(name: str) -> str:
    return f"_{name}" if name[0].isdigit() else name


def _quoted(text: str) -> str:
    """A YAML scalar that is read back as this very string."""
    is_plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text)
    is_word = text.lower() in {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
    return text if is_plain and not is_word else json.dumps(text, ensure_ascii=False)

"""starter_yaml: the text of a starter config, each choice with its reason."""

from collections.abc import Mapping
from typing import Any

from recmoe.data.splits import Split
from recmoe.onboarding import recipe
from recmoe.onboarding.column_names import feature_name
from recmoe.onboarding.profile import LogProfile
from recmoe.onboarding.roles import FeatureRole, Roles
from recmoe.onboarding.starter_tasks import starter_tasks
from recmoe.onboarding.yaml_text import aligned, flow, quoted, shown_comment


def starter_yaml(
    log: LogProfile,
    roles: Roles,
    num_rows: Mapping[Split, int],
    *,
    split_note: str,
    name: str,
    reading: Mapping[str, Any],
) -> str:
    """The config file as text.

    Args:
        reading: keys of the section ``data`` by which the log was read, for later files that are like it.
    """
    tasks = starter_tasks(log, roles)
    score = max((task for task in tasks if task.space == "all"), key=lambda task: (task.depth, task.num_positive))
    num_train = num_rows["train"]
    counts = ", ".join(f"{rows:,} rows for {split}" for split, rows in num_rows.items())
    lines = [
        f"# Starter config, made from {log.num_rows:,} rows. It trains as it stands; look at every guess below.",
        f"name: {quoted(feature_name(name))}",
        "seed: 0",
        "",
        f"# Split {shown_comment(split_note)}: {counts}.",
        "data:",
        '  train: ["${here}/train.parquet"]',
        '  validation: ["${here}/validation.parquet"]',
        '  test: ["${here}/test.parquet"]',
        *(f"  {key}: {flow(value)}    # As given to init." for key, value in reading.items()),
        "",
        *_inputs(log, roles, num_train),
        "",
        "# What is predicted. `space: NAME` means: learned and measured only where NAME is 1; `positive` says which",
        "# values of the column count as 1.",
        "tasks:",
        *aligned([(f"  {quoted(task.name)}: {task.text}", task.note) for task in tasks]),
        "",
        *recipe.model_lines(num_train),
        "",
        *recipe.tables_lines(num_train),
        "",
        *recipe.training_lines(num_train),
        "",
        "evaluation:",
        "  # Columns; every metric is also given per value.",
        f"  slices: [{', '.join(quoted(column) for column in _slices(log, roles))}]",
        "  num_resamples: 200    # For the 95 % intervals.",
        "",
        "# What a list is sorted by: a task, or a formula such as scores: {value: click + 5 * purchase}.",
        "ranking:",
        f"  default: {quoted(score.name)}",
    ]
    return "\n".join(lines) + "\n"


def _inputs(log: LogProfile, roles: Roles, num_train: int) -> list[str]:
    lines = [
        "inputs:",
        f"  width: {recipe.width(num_train)}    # Floats per row of a table.",
    ]
    if roles.group is not None:
        what = "one list" if roles.is_group_a_list else "one user: the log has no lists"
        lines.append(f"  group: {quoted(roles.group)}    # Rows of {what}; for NDCG, MRR and AUC per group.")
    else:
        lines += [
            "  # group: the column that joins the rows of one list, for NDCG, MRR and AUC per list; none was found. If",
            "  # there is one, write `group: COLUMN` and take it out of the features, or give init --group COLUMN.",
        ]
    if roles.item is not None:
        lines.append(f"  item: {quoted(roles.item)}    # Names a candidate in requests and responses.")
    else:
        lines += [
            "  # item: the column that names a candidate in requests and responses; none was found. If there is one,",
            "  # write `item: COLUMN`, or give init --item COLUMN.",
        ]
    lines.append("  # side: a ranking request carries user and context once, item for each candidate.")
    lines.append("  features:")
    names = _feature_names(roles)
    entries = [
        (f"    {quoted(names[feature.column])}: {_feature(log, feature, names)}", _feature_note(log, feature))
        for feature in roles.features
    ]
    lines += aligned(entries)
    if roles.left_out:
        lines.append("  # Left out:")
        lines += [shown_comment(f"  #   {column}: {reason}") for column, reason in roles.left_out.items()]
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
        parts.insert(1, f"column: {quoted(feature.column)}")
    if feature.kind == "numeric":
        if feature.clip is not None:
            parts.append(f"clip: {flow(feature.clip)}")
        if feature.is_compressed:
            parts.append("log1p: true")
        parts.append("forms: [value, bucket]")
    else:
        if feature.separator is not None:
            parts.append(f"separator: {quoted(feature.separator)}")
        if feature.kind == "id_list":
            parts.append("pooling: mean")
        if feature.table is not None:
            parts.append(f"table: {quoted(names[feature.table])}")
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


def _slices(log: LogProfile, roles: Roles) -> list[str]:
    """Up to two columns with few values that say what kind of user, occasion or item it is."""
    few = [
        feature
        for feature in roles.features
        if feature.kind == "id" and not feature.note and 2 <= log.columns[feature.column].num_distinct <= 12
    ]
    few.sort(key=lambda feature: (log.columns[feature.column].is_binary, feature.side == "item"))
    return [feature.column for feature in few[:2]]

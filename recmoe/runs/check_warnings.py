"""check_warnings: what the counts of the splits say about a config, in words."""

import math
from collections.abc import Iterator, Mapping

from recmoe.evaluation.baselines import Baselines, in_words, title
from recmoe.evaluation.report import metric_name
from recmoe.experiment import ExperimentConfig
from recmoe.runs.split_check import Split, SplitCheck, TaskCount
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.task import has_binary_label

MOST = 0.5
"""Share of unknown ids that is told of in any case."""
NEARLY_ALL = 0.95
"""Share of unknown ids from which an id says nothing."""
MANY_UNKNOWN = 0.2
"""Share of unknown ids in validation or test from which it matters what row 0 has learned."""
MIN_UNKNOWN = 100
"""Rows with an unknown id below which their labels are not compared."""


def check_warnings(config: ExperimentConfig, checks: Mapping[Split, SplitCheck]) -> Iterator[str]:
    """What may be meant, and often is a mistake."""
    for split, check in checks.items():
        yield from _split_warnings(config, split, check)
    yield from _unknown_warnings(config, checks)
    if "validation" not in checks:
        yield "there is no validation split: no early stopping, the last checkpoint is the result"
    if "test" not in checks:
        yield "there is no test split: training will write no report"
    yield from _step_warnings(config, checks["train"].num_rows)


def _split_warnings(config: ExperimentConfig, split: Split, check: SplitCheck) -> Iterator[str]:
    if check.num_skipped_rows or check.num_skipped_files:
        yield f"{split}: {check.num_skipped_rows} rows and {check.num_skipped_files} files were skipped as damaged"
    for name, count in check.tasks.items():
        if count.num_rows == 0:
            yield f"{split}: no row counts for task {name}; its label is missing or its space is empty"
        elif has_binary_label(config.tasks[name].output) and count.mean in (0.0, 1.0):
            kind = "negative" if count.mean == 0 else "positive"
            yield f"{split}: every label of task {name} is {kind}; AUC is not defined"
    for name, num_outside in check.num_outside.items():
        task = config.tasks[name]
        if num_outside and has_binary_label(task.output):
            yield (
                f"{split}: {num_outside:,} rows with {task.label} = 1 lie outside {task.space} (it is 0 or missing "
                f"there) and do not count for task {name}; mend the log, or give the task another space"
            )
    if check.num_without_group:
        yield (
            f"{split}: {check.num_without_group:,} of {check.num_rows:,} rows have no {config.inputs.group} "
            "(inputs.group): they belong to no list, and say nothing in metrics per list"
        )


def chance_warnings(baselines: Baselines, tasks: TaskSet) -> Iterator[str]:
    """Binary tasks that no simple model predicts better than a constant would."""
    for name in tasks.names:
        auc = metric_name(name, "auc", tasks.spaces[name])
        found = {kind: values[auc] for kind, values in baselines.values.items() if auc in values}
        known = {kind: one for kind, one in found.items() if one.low is not None}
        if known and all(one.low is not None and one.low <= 0.5 for one in known.values()):
            reached = ", ".join(f"{title(kind, 'auc')} {in_words(one)}" for kind, one in known.items())
            yield (
                f"{name}: no simple model is better than chance on the test split (AUC: {reached}); its label may not "
                "depend on these features, or has too few positives to tell"
            )


def _unknown_warnings(config: ExperimentConfig, checks: Mapping[Split, SplitCheck]) -> Iterator[str]:
    """Ids that training does not know: one warning per key, of the last split that has many."""
    train = checks["train"]
    numbers = _number_keys(config)
    for key, known_share in train.unknown_shares.items():
        is_number = key in numbers
        if known_share > MOST and not is_number:
            yield _plain_unknown("train", key, known_share)
        for split in ("test", "validation"):
            share = checks[split].unknown_shares[key] if split in checks else 0.0
            words = _row_zero_words(config, split, key, checks) if share >= MANY_UNKNOWN else None
            # A number that is missing as often in training is no surprise.
            if words is None and share > MOST and not (is_number and known_share > MOST):
                words = _plain_unknown(split, key, share) + _unknown_advice(config, key, share)
            if words is not None:
                yield words
                break


def _number_keys(config: ExperimentConfig) -> set[str]:
    """Keys of buckets, whose row 0 is "missing"."""
    return {
        key
        for name, feature in config.inputs.features.items()
        if not feature.tables(name, width=config.inputs.width)
        for key in feature.planned_ids(name, per_row=None)
    }


def _plain_unknown(split: Split, key: str, share: float) -> str:
    return f"{split}: {share:.0%} of the ids of {key} are missing or were not seen in training"


def _unknown_advice(config: ExperimentConfig, key: str, share: float) -> str:
    """What to do about an id of which nothing is known later: one that names a list never comes again."""
    feature = config.inputs.features.get(key)
    if feature is None or share < NEARLY_ALL:
        return ""  # A number's buckets, or one column of a history.
    column = feature.raw_columns(key)[0].name
    if column == config.inputs.item:
        return ""
    name = f"inputs.features.{key}"
    if column == config.inputs.group:
        return f"; it tells nothing there: remove {name} (inputs.group goes on naming the lists by it)"
    return f"; it tells nothing there: remove {name}, and if it names the list of a row, name it in inputs.group"


def _row_zero_words(config: ExperimentConfig, split: Split, key: str, checks: Mapping[Split, SplitCheck]) -> str | None:
    """Where row 0, which stands for all unknown ids, learns too little or of other rows than look it up."""
    train, later = checks["train"], checks[split]
    if key not in later.tasks_of_unknown or later.num_unknown[key] < MIN_UNKNOWN:
        return None
    share, known_share = later.unknown_shares[key], train.unknown_shares[key]
    measured = {key: checks["validation"].unknown_shares[key]} if "validation" in checks else {}
    (hidden,) = config.model.unknown_shares([key], measured)
    advice = f"raise model.unknown_share ({hidden:g}) to about {0.3 if share > MOST else 0.1}"
    difference = _largest_difference(train.tasks_of_unknown[key], later.tasks_of_unknown[key], config)
    first = f"{split}: {share:.0%} of the ids of {key} are missing or were not seen in training and look up row 0, "
    if difference is not None:
        return (
            f"{first}but the {known_share:.0%} of the training rows that teach it are not like theirs: mean "
            f"{difference}; {_min_count_advice(config, key)}{advice}"
        )
    if hidden + known_share < share / 10:
        return f"{first}which learns of {hidden + known_share:.0%} of the training rows; {advice}"
    return None


def _min_count_advice(config: ExperimentConfig, feature: str) -> str:
    (use,) = config.inputs.features[feature].tables(feature, width=config.inputs.width)
    advice = use.encoding.fewer_unknown(f"inputs.features.{feature}.encoding") if use.encoding else ""
    return f"{advice}, and " if advice else ""


def _largest_difference(
    taught: Mapping[str, TaskCount], later: Mapping[str, TaskCount], config: ExperimentConfig
) -> str | None:
    """The binary task whose mean differs most between rows that teach row 0 and rows that look it up, in words."""
    found: tuple[float, str] | None = None
    for name, count in later.items():
        other = taught[name]
        if not has_binary_label(config.tasks[name].output) or min(count.num_rows, other.num_rows) < MIN_UNKNOWN:
            continue
        mean = (count.total + other.total) / (count.num_rows + other.num_rows)
        error = math.sqrt(mean * (1 - mean) * (1 / count.num_rows + 1 / other.num_rows))
        is_large = abs(count.mean - other.mean) > max(0.1 * mean, 5 * error) and (
            max(count.mean, other.mean) > 2 * min(count.mean, other.mean) or abs(count.mean - other.mean) > 0.1
        )
        if is_large and (found is None or abs(count.mean - other.mean) / error > found[0]):
            words = f"{name} {other.mean:.3f} in training, {count.mean:.3f} there"
            found = abs(count.mean - other.mean) / error, words
    return None if found is None else found[1]


def _step_warnings(config: ExperimentConfig, num_rows: int) -> Iterator[str]:
    training = config.training
    if num_rows < training.batch_size:
        yield f"train: {num_rows} rows are fewer than one batch; lower training.batch_size ({training.batch_size})"
        return
    num_steps = training.epochs * (num_rows // training.batch_size)
    if training.max_steps is not None:
        num_steps = min(num_steps, training.max_steps)
    warmup_steps = training.schedule.warmup_steps
    if warmup_steps >= num_steps:
        yield (
            f"train: the warm-up of {warmup_steps} steps is not shorter than the run of {num_steps}: the learning rate "
            f"never gets to where it was set; lower training.schedule.warmup_steps to {num_steps // 10}"
        )

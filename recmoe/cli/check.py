"""``recmoe data check``: every row read as training would, and what is suspicious in them."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recmoe.cli.options import Config, Json, Overrides, Strict
from recmoe.cli.output import print_columns, print_json

if TYPE_CHECKING:
    from recmoe.evaluation.baselines import Baselines
    from recmoe.onboarding.leaks import LeakReport
    from recmoe.runs.check import DataCheck

SHOWN_FEATURES = 20
SHOWN_TASKS = 3


def check(
    config: Config,
    overrides: Overrides = None,
    strict: Strict = False,
    with_baselines: Annotated[
        bool, typer.Option("--baselines", help="Train simple models too, and warn of tasks that they do not predict.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Read every row as training would: columns, labels, unknown ids, features that know the answer."""
    from recmoe.experiment import load_experiment
    from recmoe.runs.check import check_data

    experiment = load_experiment(config, overrides or [])
    with tempfile.TemporaryDirectory(prefix="recmoe-") as folder:
        found = check_data(experiment, cache_dir=Path(folder), with_baselines=with_baselines)
    if as_json:
        print_json(found.to_json())
    else:
        _print_check(found)
    if strict:
        found.leaks.refuse()


def _print_check(found: "DataCheck") -> None:
    rows = [(split, one.num_files, one.num_rows, one.num_skipped_rows) for split, one in found.splits.items()]
    print_columns(["split", "files", "rows", "skipped rows"], rows)
    print()
    counts = [
        (split, task, count.num_rows, count.mean)
        for split, one in found.splits.items()
        for task, count in one.tasks.items()
    ]
    print_columns(["split", "task", "rows that count", "mean label"], counts)
    print()
    shares = [
        (key, *(one.unknown_shares[key] for one in found.splits.values()))
        for key in found.splits["train"].unknown_shares
    ]
    if shares:
        print_columns(["ids missing or unknown, share", *found.splits], shares)
        print()
    _print_alone(found.leaks)
    if found.baselines is not None:
        _print_baselines(found.baselines)
    for leak in found.leaks.allowed:
        print(f"allowed: {leak.feature}: {leak.words}")
    for warning in (*found.leaks.warnings, *found.warnings):
        print(f"warning: {warning}")
    print(found.verdict)


def _print_baselines(baselines: "Baselines") -> None:
    """AUC, or RMSE, of the simple models on the test split."""
    from recmoe.evaluation.baselines import TITLES, heading, in_words

    kinds = list(baselines.values)
    names = [name for name in baselines.values[kinds[0]] if ".auc[" in name or ".rmse[" in name] if kinds else []
    rows = [(name, *(in_words(baselines.values[kind][name]) for kind in kinds)) for name in names]
    if rows:
        print_columns(["test split", *(heading(kind, names) for kind in kinds)], rows)
        print()
    for kind, reason in baselines.missing.items():
        print(f"without {TITLES[kind]}: {reason}")


def _print_alone(leaks: "LeakReport") -> None:
    """The features that tell most, each with the tasks that it tells most of."""
    by_feature: dict[str, list[tuple[float, str]]] = {}
    for told in leaks.alone:
        if told.value is not None:
            # A rank correlation is to an AUC as 2 · AUC - 1.
            strength = told.value if told.kind == "binary" else (1 + told.value) / 2
            text = f"{told.task} {'' if told.kind == 'binary' else 'r '}{told.value:.3f}"
            by_feature.setdefault(told.feature, []).append((strength, text))
    ranked = sorted(by_feature.items(), key=lambda item: -max(item[1])[0])
    rows = [
        (feature, ", ".join(text for _, text in sorted(tasks, reverse=True)[:SHOWN_TASKS]))
        for feature, tasks in ranked[:SHOWN_FEATURES]
    ]
    if not rows:
        return
    print(f"What each feature alone tells, in {leaks.looked_at}: AUC, of regressions rank correlation (r)")
    print_columns(["feature", "its strongest tasks"], rows)
    if len(ranked) > SHOWN_FEATURES:
        print(f"… and {len(ranked) - SHOWN_FEATURES} weaker features; --json has all")
    print()

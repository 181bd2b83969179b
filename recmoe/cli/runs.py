"""``recmoe train | evaluate | export``: what makes and measures models."""

import re
import sys
import tempfile
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recmoe.cli.cost import print_cost
from recmoe.cli.options import (
    Config,
    Json,
    Model,
    Overrides,
    RegistryUri,
    Resume,
    RunDir,
    ShowAll,
    Strict,
    WarmStartFrom,
    Workers,
    with_expanded,
)
from recmoe.cli.output import print_columns, print_json
from recmoe.runs.source import RUNS, load_ranker

if TYPE_CHECKING:
    from recmoe.evaluation.report import Report
    from recmoe.runs.train import Launch, RunResult

INTERRUPTED = 130
"""Exit code of a run that was told to stop, as of a process that SIGINT ended."""


class SplitName(StrEnum):
    """The splits of a config."""

    train = "train"
    validation = "validation"
    test = "test"


def worker_range(text: str) -> tuple[int, int]:
    """Fewest and most workers."""
    found = re.fullmatch(r"(\d+)(?::(\d+))?", text.strip())
    fewest, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= fewest <= most:
        raise typer.BadParameter(
            f"{text!r} is not a number of workers; write it like 4, or 2:8 for at least 2 and at most 8",
            param_hint="--workers",
        )
    return fewest, most


def launch_of(workers: str | None) -> tuple["Launch", int]:
    """How the processes of a job are started, and how many there are at most."""
    from recmoe.runs.train import train_here

    if workers is None:
        return train_here, 1
    from pipelines.train import train_on_ray

    fewest, most = worker_range(workers)
    return partial(train_on_ray, num_workers=most, min_workers=fewest), most


def train(
    config: Config,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    resume: Resume = False,
    workers: Workers = None,
    warm_start: WarmStartFrom = None,
    registry: RegistryUri = None,
    strict: Strict = False,
    show_all: ShowAll = False,
    as_json: Json = False,
) -> None:
    """Train, evaluate and bundle an experiment.

    Ctrl-C and SIGTERM save a checkpoint and stop; the same command with --resume goes on from there.
    """
    from recmoe.experiment import load_experiment
    from recmoe.runs.train import train_run
    from recmoe.runs.warm_start import find_warm_start

    experiment = load_experiment(config, overrides or []).learning_tasks()
    root = run_dir or RUNS / experiment.name
    launch, _ = launch_of(workers)
    earlier = None if warm_start is None else find_warm_start(warm_start, registry_uri=registry)
    result = train_run(experiment, root, resume=resume, launch=launch, warm_start=earlier, is_strict=strict)
    show_run(result, show_all=show_all, as_json=as_json)


def show_run(result: "RunResult", *, show_all: bool, as_json: bool) -> None:
    """What a run left behind, for people or as JSON.

    Raises:
        typer.Exit: it was interrupted.
    """
    from recmoe.runs.about import checkpoint_in_words

    state, root = result.folder.state, result.folder.root
    if as_json:
        values = result.report.values() if result.report else {}
        cost = result.folder.cost_report()
        print_json({"run_dir": root, "is_interrupted": result.is_interrupted, "metrics": values,
                    "samples_per_s": result.samples_per_s, "bundle": result.folder.bundle,
                    "tracking_page": state.get("tracking_page"), "skipped": state.get("skipped", {}),
                    "wait_share": state.get("wait_share", 0.0),
                    "warm_start": result.folder.warm_start_report(),
                    **({} if cost is None else {"cost": cost})})  # fmt: skip
    tell_interrupted(result)
    if not as_json:
        _print_warm_start(result.folder.warm_start_report())
        if result.report is not None:
            _print_report(result.report, slices=False, is_long=show_all)
            print(f"\ntest     checkpoint of {checkpoint_in_words(state)}")
            print(f"report   {result.folder.page}")
        print_cost(result.folder.cost_report())
        for split, told in state.get("skipped", {}).items():
            print(f"skipped  {split}: {told}")
        print(f"bundle   {result.folder.bundle}")
        if page := state.get("tracking_page"):
            print(f"curves   {page}")
        print(f"speed    {result.samples_per_s:,.0f} samples/s, waited for data {state.get('wait_share', 0.0):.1%}")
        print(f"next     recmoe register {root}, or recmoe serve {root}")


def tell_interrupted(result: "RunResult") -> None:
    """How to go on with a run that was stopped; nothing of one that is over.

    Raises:
        typer.Exit: it was interrupted.
    """
    if result.is_interrupted:
        state, root = result.folder.state, result.folder.root
        print(f"stopped at step {state['step']:,}; go on with --resume --run-dir {root}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)


def evaluate(
    model: Model,
    overrides: Overrides = None,
    split: Annotated[SplitName, typer.Option(help="Split of the model's config.")] = SplitName.test,
    data: Annotated[
        list[str] | None, typer.Option(help="File, folder or glob to use in place of the split; repeatable.")
    ] = None,
    target: Annotated[Path, typer.Option("--to", help="Folder for report.json and report.html.")] = Path("evaluation"),
    slices: Annotated[bool, typer.Option("--slices", help="Print the metrics of every slice too.")] = False,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Train simple models on the training split and compare with them.")
    ] = False,
    registry: RegistryUri = None,
    show_all: ShowAll = False,
    as_json: Json = False,
) -> None:
    """Measure a model: task × space × metric × slice, with 95 % intervals.

    Baselines of the run are shown where the rows are those of its report; --baselines computes them for any rows.
    """
    from recmoe.runs.evaluation import evaluate_bundle

    paths, changes = with_expanded(data, overrides)
    bundle = load_ranker(model, registry_uri=registry).bundle
    with tempfile.TemporaryDirectory(prefix="recmoe-") as folder:
        evaluation = evaluate_bundle(
            bundle,
            split=split.value,
            paths=paths,
            overrides=changes,
            cache_dir=Path(folder),
            with_baselines=baselines,
        )
    values, page = evaluation.write(target)
    if as_json:
        print(values.read_text(encoding="utf-8"))
    else:
        _print_report(evaluation.report, slices=slices, is_long=show_all)
        print(f"\nwrote {values} and {page}")


def export(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of a finished run.")],
    target: Annotated[Path, typer.Option("--to", help="Folder to make.")],
    as_json: Json = False,
) -> None:
    """Copy a run's bundle to where it is wanted, verify it and replay its requests.

    A bundle that was removed from a finished run is made again first, from the best checkpoint.
    """
    from recmoe.runs.export import export_run
    from recmoe.runs.folder import RunFolder
    from recmoe.runs.train import remake_bundle

    remake_bundle(RunFolder(run_dir))
    bundle = export_run(RunFolder(run_dir), target)
    if as_json:
        print_json({"path": target, "name": bundle.name, "digest": bundle.digest})
    else:
        print(f"wrote {target}: {bundle.name}, digest {bundle.digest[:12]}, replay passed")


def _print_warm_start(report: dict[str, Any] | None) -> None:
    """What a run has taken over from an earlier model; nothing where it began by itself."""
    if report is None:
        return
    rows = [
        (table, one["rows"], one["kept"], one["new"], one["dropped"], "yes" if one["has_optimizer"] else "no")
        for table, one in report["tables"].items()
    ]
    print(f"went on from {report['source']}\n")
    print_columns(["table", "rows", "kept", "new", "dropped", "optimizer state"], rows)
    print(
        f"\ndense weights: {len(report['dense_kept'])} kept, {len(report['dense_partly'])} partly, "
        f"{len(report['dense_new'])} new; optimizer state: {'yes' if report['has_dense_optimizer'] else 'no'}"
    )
    for what in ("new", "dropped"):
        if report[f"features_{what}"]:
            print(f"{what} features: {', '.join(report[f'features_{what}'])}")
    print()


def _print_report(report: "Report", *, slices: bool, is_long: bool) -> None:
    """A line per task beside its baselines, or every number; then what to worry about."""
    from rich.console import Console

    from recmoe.evaluation.baselines import TITLES
    from recmoe.evaluation.by_group import group_sentences
    from recmoe.evaluation.summary_table import summary_table
    from recmoe.evaluation.tables import report_table

    console = Console()
    # Away from a terminal rich would wrap at 80 columns.
    console = Console(width=console.width if console.is_terminal else 160)
    console.print(report_table(report, slices=slices) if is_long or slices else summary_table(report))
    for text in group_sentences(report) if slices else ():
        print(f"groups   {text}")
    if report.baselines is None:
        return
    for text in report.baselines.warnings:
        print(f"warning  {text}")
    for kind, reason in report.baselines.missing.items():
        print(f"without  {TITLES[kind]}: {reason}")
    for note in report.baselines.notes:
        print(f"note     {note}")

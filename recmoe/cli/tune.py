"""``recmoe tune``: a better config, found by trying."""

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recmoe.cli.options import Config, Json, Overrides
from recmoe.cli.output import print_columns, print_json
from recmoe.cli.runs import INTERRUPTED
from recmoe.errors import StackError

if TYPE_CHECKING:
    from pipelines.tuning.tune import TuneResult

NUM_SHOWN = 5
"""Trials in the table at the end."""


def tune(
    config: Config,
    overrides: Overrides = None,
    target: Annotated[
        Path | None, typer.Option("--to", help="Folder of the search; tuning/NAME by default.", file_okay=False)
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials of the whole search, earlier calls included.")] = 30,
    time: Annotated[
        str | None, typer.Option(metavar="TIME", help="Stop after it: 90s, 20m, 1h30m; running trials are cut.")
    ] = None,
    concurrent: Annotated[int, typer.Option(min=1, help="Trials at a time; they share the cores.")] = 1,
    space: Annotated[
        Path | None,
        typer.Option(
            help="YAML file of what is searched, KEY.PATH: {low, high, log} or {choices: […]}; 'default: true' in it "
            "adds to what is searched without it.",
            dir_okay=False,
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="What trials are compared by on validation; what early stopping watches by default."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume/--no-resume", help="Go on with the search in the folder.")] = False,
    as_json: Json = False,
) -> None:
    """Search for a better config: trials drawn by Optuna, poor ones stopped early, the first one the config itself.

    Trials are compared on the validation split; the test split is not read. Ctrl-C and SIGTERM lose the running
    trials alone; the same command with --resume goes on.
    """
    if find_spec("optuna") is None:
        raise StackError("optuna, which draws the trials, is not installed; pip install 'recmoe[tune]'")
    from pipelines.tuning.tune import tune as search
    from recmoe.experiment import load_experiment

    given = [*(overrides or []), *([] if metric is None else [f"training.early_stopping.metric={metric}"])]
    time_s = None if time is None else seconds(time)
    root = target or Path("tuning") / load_experiment(config, given).name
    result = search(
        config,
        root,
        overrides=given,
        space=space,
        num_trials=trials,
        time_s=time_s,
        num_concurrent=concurrent,
        resume=resume,
        is_quiet=as_json,
    )
    if as_json:
        print_json(_document(result))
    elif result.best is not None:
        _print_best(result)
    if result.is_interrupted:
        print(f"stopped after {len(result.records)} trials; go on with --resume --to {root}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)


def seconds(text: str) -> float:
    """A span such as ``90s``, ``20m`` or ``1h30m``; a bare number is seconds."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip())
    parts = [int(part or 0) for part in found.groups()] if found else [0]
    total = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if not total:
        raise typer.BadParameter(f"{text!r} is no time; write it like 90s, 20m or 1h30m", param_hint="--time")
    return float(total)


def _print_best(result: "TuneResult") -> None:
    """The best trials, and what to do next."""
    from pipelines.tuning.score import Score
    from pipelines.tuning.space import show_value

    score, names = Score.of(result.config), result.space.names()
    scored = sorted((one for one in result.records if one.score is not None), key=lambda one: -(one.score or 0.0))
    rows = []
    for one in scored[:NUM_SHOWN]:
        changes = ", ".join(f"{names[key]}={show_value(value)}" for key, value in result.changes(one).items())
        rows.append((str(one.number), score.shown(one.score or 0.0), one.status, changes or "the config as it stands"))
    print_columns(["trial", score.metric, "status", "changes"], rows)
    print(f"\npage     {result.folder.page}")
    print(f"best     {result.folder.best}")
    print(f"next     recmoe train {result.folder.best} --run-dir runs/{result.config.name}-tuned")


def _document(result: "TuneResult") -> dict[str, object]:
    best = result.best
    return {
        "folder": result.folder.root,
        "is_interrupted": result.is_interrupted,
        "num_trials": len(result.records),
        "best": None if best is None else {"trial": best.number, "score": best.score, "metrics": best.metrics,
                                           "changes": result.changes(best)},
        "config": result.folder.best,
        "page": result.folder.page,
    }  # fmt: skip

"""``recmoe daily``: incremental training, a day at a time."""

import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recmoe.cli.options import Config, DeltaOf, Json, Overrides, RegistryUri, WarmStartFrom, Workers, with_expanded
from recmoe.cli.output import print_columns, print_json
from recmoe.cli.runs import INTERRUPTED, launch_of
from recmoe.runs.source import RUNS

if TYPE_CHECKING:
    from pipelines.daily import DailyResult
    from recmoe.runs.folder import RunFolder


def daily(
    config: Config,
    overrides: Overrides = None,
    days: Annotated[
        list[str] | None, typer.Option(help="Glob of files or folders, one per day, in the order of their names.")
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder of the daily training; runs/NAME-daily by default.", file_okay=False)
    ] = None,
    workers: Workers = None,
    warm_start: WarmStartFrom = None,
    register: Annotated[
        str | None, typer.Option(metavar="NAME", help="Make each day's model a new version of this one.")
    ] = None,
    delta_of: DeltaOf = None,
    frozen: Annotated[
        bool, typer.Option("--frozen", help="Also measure the first day's model on every later day.")
    ] = False,
    keep_days: Annotated[int, typer.Option(min=1, help="Newest days whose checkpoints are kept.")] = 7,
    registry: RegistryUri = None,
    as_json: Json = False,
) -> None:
    """Train day by day: measure yesterday's model on today's rows, then go on with them.

    A day without rows, or with fewer than a step needs, is passed over.

    Days that are trained already are skipped, so the same command takes each new day as it comes, and goes on with
    the day in which it was stopped.
    """
    from pipelines.daily import find_days, train_daily
    from recmoe.errors import DataError
    from recmoe.experiment import load_experiment
    from recmoe.runs.warm_start import find_warm_start

    if not days:
        raise DataError("no days are given; name them by --days 'log/day=*'")
    patterns, changes = with_expanded(days, overrides)
    experiment = load_experiment(config, changes).learning_tasks()
    root = run_dir or RUNS / f"{experiment.name}-daily"
    _check_names(register, delta_of)
    launch, most = launch_of(workers)
    result = train_daily(
        experiment,
        find_days(patterns),
        root,
        launch=launch,
        num_workers=most,
        warm_start=None if warm_start is None else find_warm_start(warm_start, registry_uri=registry),
        register=None if register is None else partial(_register, name=register, registry=registry, base=delta_of),
        with_frozen=frozen,
        keep_days=keep_days,
    )
    if as_json:
        print_json({"run_dir": root, **{name: value for name, value in asdict(result).items() if name != "root"}})
    else:
        _print_days(result)
    if result.is_interrupted:
        print(f"stopped within a day; the same command goes on in {root}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)


def _check_names(register: str | None, delta_of: str | None) -> None:
    from recmoe.errors import RegistryError
    from recmoe.tracking.names import check_model_name

    if register is not None:
        check_model_name(register)
    elif delta_of is not None:
        raise RegistryError("--delta-of says how versions are registered; name their model by --register NAME")


def _register(folder: "RunFolder", *, name: str, registry: str | None, base: str | None) -> str:
    """The version that a day's model is registered as; it is sent whole while there is no base yet."""
    from recmoe.registry.registry import Registry

    run_id = folder.state.get("tracking_run_id")
    connected = Registry.connect(registry, folder=RUNS)
    known = base if base is not None and connected.has(name, base) else None
    registered = connected.register(
        folder.bundle,
        name=name,
        run_id=run_id,
        base=known,
        cache=RUNS / "cache",
    )
    if base is not None:
        reason = f": {name} has no version {base} yet" if known is None else ""
        print(f"{folder.root}: sent {registered.transfer}{reason}", file=sys.stderr)
    assert registered.version is not None
    return registered.version


def _print_days(result: "DailyResult") -> None:
    """A line per day: what yesterday's model was worth on it, and what it did to the tables of dynamic ids."""
    from recmoe.evaluation.main_metrics import main_metrics

    metrics = main_metrics(name for day in result.days for name in day.metrics)
    has_frozen = any(day.frozen for day in result.days)
    tables = list(dict.fromkeys(table for day in result.days for table in day.ids))
    headers = ["day", "rows"]
    for metric in metrics:
        headers += [metric, f"{metric} frozen"] if has_frozen else [metric]
    headers += [f"{table} {what}" for table in tables for what in ("rows used", "admitted", "evicted", "at row 0")]
    rows = []
    for day in result.days:
        cells: list[str | int | float] = [day.day, day.num_rows]
        for metric in metrics:
            cells += [day.metrics.get(metric, float("nan"))]
            cells += [day.frozen.get(metric, float("nan"))] if has_frozen else []
        for table in tables:
            update = day.ids.get(table, {})
            cells += [int(update.get(name, 0)) for name in ("rows_used", "admitted", "evicted")]
            cells += [update.get("unknown_share", float("nan"))]
        rows.append(cells)
    print_columns(headers, rows)
    if result.days and not result.days[0].metrics and metrics:
        print(f"–: no model before {result.days[0].day} to measure on it")
    if result.days:
        print(f"\nwrote {result.root / 'daily.json'} and {result.root / 'daily.png'}")
        newest = result.days[-1]
        registered = "" if newest.version is None else f", registered as version {newest.version}"
        print(f"newest model: {newest.run}{registered}")

"""The main job: a log becomes a trained, evaluated, registered model that ranks candidates through an API."""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.ray_session import ray_session
from pipelines.train import train_on_ray
from recmoe.data.datasets import IMPORTERS, import_dataset
from recmoe.data.synthetic import write_synthetic
from recmoe.errors import RecmoeError
from recmoe.evaluation.metrics import metric_best
from recmoe.evaluation.report import Report
from recmoe.evaluation.seeds import mean_report
from recmoe.evaluation.tables import compare_table
from recmoe.experiment import ExperimentConfig, load_experiment
from recmoe.registry.registry import CHAMPION, Registry
from recmoe.runs.folder import RunFolder
from recmoe.runs.source import RUNS
from recmoe.runs.train import RunResult, train_run

ARCHITECTURES = ("shared_bottom", "mmoe", "ple")
METRICS = ("auc", "normalized_entropy", "calibration", "rmse", "mae", "gauc_impression", "ndcg@10", "mrr")
"""What is printed side by side; the reports hold more."""
NUM_WORKERS = 2
TABLE_WIDTH = 240
"""Columns that tables may take, whatever the terminal: a long line is better than numbers cut off."""


@dataclass(frozen=True)
class Candidate:
    """One architecture, trained with every seed."""

    kind: str
    runs: list[RunResult]

    @property
    def report(self) -> Report:
        """Mean over the seeds."""
        return mean_report([run.report for run in self.runs if run.report is not None])


@dataclass(frozen=True)
class Plan:
    """What is trained, and how."""

    data: str
    architectures: Sequence[str]
    num_seeds: int
    num_workers: int
    overrides: Sequence[str]
    """``key.path=value`` for the config of every run."""


def run_demo(plan: Plan, *, source: Path | None, target: Path, num_rows: int) -> None:
    """Make or import a log, train several architectures, register the best, serve it, rank once."""
    console = Console(highlight=False, soft_wrap=True, width=TABLE_WIDTH)
    started_s = time.monotonic()
    step = _Steps(console)
    step(f"the log → {target}")
    config_path = _log(plan.data, source, target, num_rows)
    truth = _truth(target)
    step(
        f"training {', '.join(plan.architectures)} with {plan.num_workers} Ray Train workers, "
        f"{plan.num_seeds} seed(s) each"
    )
    candidates = _train_all(plan, config_path, console)
    step("test split, side by side" + (f", mean of {plan.num_seeds} seeds" if plan.num_seeds > 1 else ""))
    speeds = {c.kind: f"{sum(run.samples_per_s for run in c.runs) / len(c.runs):,.0f}" for c in candidates}
    console.print(
        compare_table(
            {c.kind: c.report for c in candidates}, columns=truth, rows={"samples/s": speeds}, metrics=METRICS
        )
    )
    best = _best(candidates)
    champion = f"models:/{plan.data}@{CHAMPION}"
    step(f"registering {best.folder.root} as {champion}")
    version = _register(best, plan.data)
    console.print(f"version {version} of {plan.data}")
    step(f"serving {champion} and ranking one list of the test split")
    config = load_experiment(config_path)
    # The server is a process of its own, as in production; importing it here would load it for nothing.
    from pipelines.demo_request import rank_once

    rank_once(config, champion, console)
    step("where things are")
    console.print(f"report    {best.folder.page}")
    console.print(f"MLflow    .venv/bin/mlflow ui --backend-store-uri sqlite:///{RUNS / 'mlflow.db'}")
    console.print(f"serve     .venv/bin/recmoe serve {champion}")
    console.print(f"took      {time.monotonic() - started_s:,.0f} s")


class _Steps:
    """Numbers the headings."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._number = 0

    def __call__(self, text: str) -> None:
        self._number += 1
        self._console.print(f"\n[bold]{self._number}. {text}[/bold]")


def _log(data: str, source: Path | None, target: Path, num_rows: int) -> Path:
    if (target / "config.yaml").exists():
        return target / "config.yaml"
    if data == "synthetic":
        return write_synthetic(target, num_rows=num_rows).config
    if source is None:
        raise RecmoeError(f"the files of {data} are needed: make demo DATA={data} FROM=folder")
    return import_dataset(data, source, target)


def _truth(target: Path) -> dict[str, Mapping[str, float]]:
    """Columns to stand beside the models: the best reachable values, or rankings that need no model."""
    path = target / "truth.json"
    if not path.exists():
        return {}
    truth: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    columns: dict[str, Mapping[str, float]] = truth.get("baselines") or {"best reachable": truth}
    return columns


def _train_all(plan: Plan, config_path: Path, console: Console) -> list[Candidate]:
    """Every architecture with every seed; runs that are finished are taken as they are."""
    names = [(kind, seed) for kind in plan.architectures for seed in range(plan.num_seeds)]
    is_done = all(_folder(plan, kind, seed).state.get("status") == "finished" for kind, seed in names)
    # Ray takes longer to start than finished runs take to read.
    with nullcontext() if is_done else ray_session(num_workers=plan.num_workers):
        runs = {name: _train(plan, config_path, *name, console) for name in names}
    return [Candidate(kind, [runs[kind, seed] for seed in range(plan.num_seeds)]) for kind in plan.architectures]


def _train(plan: Plan, config_path: Path, kind: str, seed: int, console: Console) -> RunResult:
    base = load_experiment(config_path)
    overrides = [f"name={plan.data}-{kind}", f"seed={seed}", *_architecture(base, kind), *plan.overrides]
    console.print(f"[bold]{kind}[/bold] seed {seed}")
    result = train_run(
        load_experiment(config_path, overrides),
        _folder(plan, kind, seed).root,
        resume=True,
        launch=partial(train_on_ray, num_workers=plan.num_workers),
    )
    if result.is_interrupted or result.report is None:
        raise RecmoeError(f"{result.folder.root} was interrupted; run the demo again to go on")
    return result


def _folder(plan: Plan, kind: str, seed: int) -> RunFolder:
    return RunFolder(RUNS / f"{plan.data}-{kind}-seed{seed}")


def _architecture(base: ExperimentConfig, kind: str) -> list[str]:
    """Overrides that put another architecture into a config, with experts of the same size."""
    current = base.model.architecture
    if current.kind == kind:
        return []
    hidden = getattr(current, "expert_hidden", None) or getattr(current, "hidden", None)
    size = "hidden" if kind == "shared_bottom" else "expert_hidden"
    section = {"kind": kind, size: list(hidden or ()), "dropout": getattr(current, "dropout", 0.0)}
    return [f"model.architecture={json.dumps(section)}"]


def _best(candidates: Sequence[Candidate]) -> RunResult:
    """The run with the best validation value; the test split has no say."""
    runs = [run for candidate in candidates for run in candidate.runs]
    stopping = json.loads(runs[0].folder.config.read_text(encoding="utf-8"))["training"]["early_stopping"]["metric"]
    sign = 1.0 if metric_best(stopping) == "highest" else -1.0
    return max(runs, key=lambda run: sign * run.folder.state["best_value"])


def _register(best: RunResult, name: str) -> str:
    registry = Registry.connect(folder=RUNS)
    registered = registry.register(best.folder.bundle, name=name, run_id=best.folder.state["tracking_run_id"])
    assert registered.version is not None
    registry.promote(name, registered.version, note="best validation value of the demo")
    return registered.version


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m pipelines.demo``; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.demo",
        description=__doc__,
        epilog="example: python -m pipelines.demo --data census --from folder/with/census --to demo/census",
    )
    parser.add_argument("--data", choices=["synthetic", *IMPORTERS], default="synthetic")
    parser.add_argument("--from", dest="source", type=Path, help="folder with the published files of the data set")
    parser.add_argument("--to", type=Path, help="folder for the splits; demo/DATA by default")
    parser.add_argument("--rows", type=int, default=300_000, help="rows of the synthetic log")
    parser.add_argument("--seeds", type=int, help="seeds per architecture; 1 for the synthetic log, else 3")
    parser.add_argument("--workers", type=int, default=NUM_WORKERS, help="Ray Train workers")
    parser.add_argument("--architectures", nargs="+", default=ARCHITECTURES, help="kinds to compare", metavar="KIND")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], help="value for every config", metavar="KEY=VALUE"
    )
    options = parser.parse_args(arguments)
    try:
        run_demo(
            Plan(
                data=options.data,
                architectures=options.architectures,
                num_seeds=options.seeds or (1 if options.data == "synthetic" else 3),
                num_workers=options.workers,
                overrides=options.overrides,
            ),
            source=options.source,
            target=options.to or Path("demo") / options.data,
            num_rows=options.rows,
        )
    except RecmoeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

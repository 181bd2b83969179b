"""Every architecture on every log, with one budget: what it reaches, what it costs, and whether it beats plain ones.

python -m benchmarks.architectures --data synthetic,census --seeds 0,1,2 --trials 4 --processes 2

Of each variant some trials are trained, the same ones for all; the best on validation is trained with the other seeds
too. A training that is done is kept below --to, and the same command goes on where it was stopped.
"""

import argparse
import logging
import multiprocessing
import os
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

from benchmarks.comparison.logs import NAMES, Log, find_log
from benchmarks.comparison.measures import chief_metrics
from benchmarks.comparison.page import PLOT, Compared, short_table, whole_page
from benchmarks.comparison.plot import draw
from benchmarks.comparison.progress import Progress
from benchmarks.comparison.rows import rows_of
from benchmarks.comparison.speeds import speed_of
from benchmarks.comparison.trainings import Failure, Job, Result, chosen, simple_results
from benchmarks.comparison.variants import REFERENCES, TRIALS, VARIANTS, Variant, trial_config
from recmoe.baselines.task_data import MAX_TRAIN_ROWS
from recmoe.errors import ConfigError, RecmoeError
from recmoe.experiment import load_experiment
from recmoe.runs.folder import write_atomically

CACHE = Path(__file__).parent / ".cache" / "architectures"
PAGE, SHORT = "RESULTS.md", "short.md"


def compare(log: Log, variants: Sequence[Variant], options: argparse.Namespace, progress: Progress) -> Compared:
    """Train what is not trained yet, and set all that there is side by side."""
    num_left_after = progress.num_left - len(variants) * _num_trainings(options)
    base = load_experiment(log.config)
    metrics = chief_metrics(base)
    overrides = [f"data.cache_dir={options.to.resolve() / 'cache'}", *options.override]

    def job_of(name: str, trial: int, seed: int) -> Job:
        config = trial_config(log.name, base, VARIANTS[name], trial, seed=seed, overrides=overrides)
        return Job(log.name, log.digest, name, trial, config, metrics, options.resamples)

    left_out: dict[str, str] = {}
    trials: list[Job] = []
    for variant in variants:
        try:
            trials += [job_of(variant.name, trial, options.seeds[0]) for trial in range(options.trials)]
        except ConfigError as error:
            left_out[variant.name] = " ".join(str(error).split())
    results = _by_variant(progress.results(trials), left_out)
    # Of a variant that is not through its trials, nothing is chosen yet.
    best = {name: chosen(found) for name, found in results.items() if len(found) == options.trials}
    others = [job_of(name, one.trial, seed) for name, one in best.items() for seed in options.seeds[1:]]
    more = _by_variant(progress.results(others), left_out)
    done = {name: [one, *sorted(more[name], key=lambda result: result.seed)] for name, one in best.items()}
    simple = simple_results(job_of(REFERENCES[0], 0, 0), options.to, is_new_allowed=progress.may_train)
    if not progress.is_stopped:
        progress.num_left = num_left_after
    # One at a time, with all cores, when nothing trains beside it.
    speeds = {
        name: speed_of(job_of(name, best[name].trial, options.seeds[0]), options.to, is_new_allowed=progress.may_train)
        for name in done
    }
    rows = rows_of(
        done | {one.variant: [one] for one in simple}, known=log.known, metrics=metrics, samples_per_s=speeds
    )
    return Compared(log.name, metrics, rows, left_out)


def _num_trainings(options: argparse.Namespace) -> int:
    """Of a variant on a log."""
    num_trainings: int = options.trials + len(options.seeds) - 1
    return num_trainings


def _by_variant(results: Iterable[Result | Failure], left_out: dict[str, str]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        if isinstance(result, Failure):
            left_out[result.variant] = f"a training failed: {' '.join(result.reason.split())}"
        else:
            found[result.variant].append(result)
    return found


def write(compared: Sequence[Compared], options: argparse.Namespace, *, num_left: int) -> None:
    """The page with its plot, and the short table."""
    seeds = ", ".join(map(str, options.seeds))
    rows = ", ".join(f"{name} {options.rows[name]:,}" for name in options.data if name in options.rows)
    about = [
        f"`python -m benchmarks.architectures --data {','.join(options.data)} --seeds {seeds.replace(' ', '')} "
        f"--trials {options.trials}{_rows_text(options.rows)}`, torch {version('torch')}, {os.cpu_count()} cores.",
        *([f"Rows of all splits together: {rows}."] if rows else []),
        f"Every variant has {options.trials} trials of learning rates and dropout with seed {options.seeds[0]}, the "
        "same ones for all, over the same epochs; the one with the best skill over all tasks on validation is trained "
        f"with seeds {seeds}. Layers are as wide as in the log's own config. Values are means over the seeds, "
        f"intervals are of {options.resamples} resamples of test rows (of lists, where there are any), ± is half the "
        "range over seeds. A difference is better for positive numbers, whatever the metric; its resamples draw the "
        "same rows for both and seeds anew for each, and it is called better or worse where 95 % of them leave out "
        "zero: one in forty is called better, and one in forty worse, by chance.",
        "FLOP are those of a training step, forward and backward; active are the parameters outside of tables that the "
        "predictions of one row depend on; samples/s are those of a short training by itself on all cores, with "
        "reading.",
        "Logistic regression and boosted trees are those of every report: one model per task, settings chosen on "
        f"validation, at most {MAX_TRAIN_ROWS:,} training rows.",
    ]
    if num_left:
        about.append(f"Not complete: {num_left} trainings are left. The same command goes on.")
    target = options.page or options.to
    target.mkdir(parents=True, exist_ok=True)
    write_atomically(target / PAGE, whole_page(compared, about=about))
    write_atomically(options.to / SHORT, short_table(compared))
    draw(compared, target / PLOT)
    print(f"{target / PAGE}, {target / PLOT}, {options.to / SHORT}")


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line.

    Raises:
        ConfigError: a variant that does not exist, or a number of trials that there is no grid for.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.architectures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names, numbers = (lambda text: text.split(",")), (lambda text: [int(one) for one in text.split(",")])
    parser.add_argument("--data", type=names, default=list(NAMES), help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--kinds", type=names, default=list(VARIANTS), help="variants; all by default: %(default)s")
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2], help="the first one is that of the trials")
    parser.add_argument(
        "--rows",
        type=_rows,
        default={},
        metavar="NUMBER|LOG=NUMBER,…",
        help="of every log, or of some; public ones are cut to their last rows",
    )
    parser.add_argument("--trials", type=int, default=4, help=f"of each variant, up to {len(TRIALS)} (%(default)s)")
    parser.add_argument("--resamples", type=int, default=200, help="for the intervals (%(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="trainings at a time, sharing the cores (%(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="no training begins after that; 0 writes only"
    )
    parser.add_argument("--override", action="append", default=[], help="KEY=VALUE for every config; repeatable")
    parser.add_argument("--to", type=Path, default=CACHE, help="logs, results and, by default, the page (%(default)s)")
    parser.add_argument("--page", type=Path, help=f"another folder for {PAGE} and its plot, such as benchmarks")
    options = parser.parse_args(arguments)
    for name in options.kinds:
        if name not in VARIANTS:
            raise ConfigError(f"--kinds: there is no {name!r}; choose from {', '.join(VARIANTS)}")
    if not 1 <= options.trials <= len(TRIALS):
        raise ConfigError(f"--trials must be from 1 to {len(TRIALS)}, got {options.trials}")
    if options.processes < 1:
        raise ConfigError(f"--processes must be at least 1, got {options.processes}")
    return options


def _rows(text: str) -> dict[str, int]:
    """By log."""
    if "=" not in text:
        return dict.fromkeys(NAMES, int(text))
    by_log = {name: int(number) for name, _, number in (part.partition("=") for part in text.split(","))}
    for name in by_log:
        if name not in NAMES:
            raise argparse.ArgumentTypeError(f"there is no log {name!r}; choose from {', '.join(NAMES)}")
    return by_log


def _rows_text(rows: Mapping[str, int]) -> str:
    """As it is given on the command line."""
    return f" --rows {','.join(f'{name}={number}' for name, number in rows.items())}" if rows else ""


def run(options: argparse.Namespace) -> int:
    """Compare on every log; 0 where everything is trained, 1 where something was left or failed."""
    variants = [VARIANTS[name] for name in options.kinds]
    logs = [find_log(name, options.to / "logs", rows=options.rows.get(name)) for name in options.data]
    context = multiprocessing.get_context("spawn")
    num_threads = max(1, (os.cpu_count() or 1) // options.processes)
    pool = (
        nullcontext()
        if options.processes == 1
        else ProcessPoolExecutor(options.processes, context, initializer=_prepare, initargs=(num_threads,))
    )
    with pool as executor:
        progress = Progress(
            options.to,
            num_left=len(logs) * len(variants) * _num_trainings(options),
            num_processes=options.processes,
            stop_at_s=time.monotonic() + 60 * options.minutes,
            pool=executor,
        )
        compared = [compare(log, variants, options, progress) for log in logs]
    write(compared, options, num_left=progress.num_left)
    return int(progress.is_stopped or progress.num_failed > 0)


def _prepare(num_threads: int) -> None:
    """Of a process of the pool."""
    import torch

    torch.set_num_threads(num_threads)
    _hush()


def _hush() -> None:
    """What a run warns of is the log's business, not the comparison's."""
    logging.getLogger("recmoe").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


def main() -> None:
    """Compare what the command line names."""
    _hush()
    try:
        sys.exit(run(parse_options(sys.argv[1:])))
    except RecmoeError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")


if __name__ == "__main__":
    main()

"""What distillation keeps, saves and gains: a teacher, a student of it, and the same student without a teacher.

python -m benchmarks.distillation --rows 250000 --seeds 0,1,2 --weight 4
RECMOE_DATA=… python -m benchmarks.distillation --data census --seeds 0,1,2,3,4 --teachers 4 --weight 16 \\
    --teacher "model.architecture={kind: local_experts, num_experts: 8, expert_hidden: [128, 64], dropout: 0.25}" \\
    --student "model.architecture={kind: local_experts, num_experts: 8, expert_hidden: [256, 128], dropout: 0.25}" \\
    --student training.epochs=12 --student training.early_stopping.patience=6

Without --teacher and --student an MMoE of 16 experts of 512 × 256 teaches one network of 64 × 32. With
--teachers N, a student learns from the mean of N teachers: those of its own seed and of the seeds after it. Metrics are
of the test split; in ranking, on one thread as in a server, the bundles take turns over the same requests.
"""

import argparse
import logging
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.comparison.logs import NAMES as LOGS
from benchmarks.comparison.logs import SYNTHETIC, find_log
from benchmarks.comparison.measures import chief_metrics
from benchmarks.options import CACHE
from recmoe.cli.output import print_columns
from recmoe.evaluation.metrics import metric_best
from recmoe.experiment import load_experiment
from recmoe.ranking.example import requests_of_rows
from recmoe.ranking.ranker import Ranker
from recmoe.ranking.request import RankRequest
from recmoe.runs.origin import find_origin
from recmoe.runs.train import train_run

TEACHER = ("model.architecture={kind: mmoe, num_experts: 16, expert_hidden: [512, 256]}",)
STUDENT = ("model.architecture={kind: shared_bottom, hidden: [64, 32]}",)
NAMES = ("teacher", "student", "student alone")
NUM_CANDIDATES = (200, 2000)
NUM_WARM, NUM_TIMED = 5, 30
"""Requests to each bundle, of which only the later ones are timed."""


@dataclass(frozen=True)
class Trained:
    """A model with its metrics of the test split."""

    bundle: Path
    metrics: dict[str, float]


def main() -> None:
    """Train with every seed, rank in turns, print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=LOGS, default=SYNTHETIC, help="the log (%(default)s)")
    parser.add_argument("--rows", type=int, help="of all splits together (the whole log; 250,000 synthetic rows)")
    parser.add_argument("--seeds", type=lambda text: [int(one) for one in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--weight", type=float, default=1.0, help="of what the teacher says (%(default)s)")
    parser.add_argument("--teachers", type=int, default=1, help="that teach a student, by their mean (%(default)s)")
    parser.add_argument("--teacher", action="append", metavar="KEY=VALUE", help="of its config; repeatable")
    parser.add_argument("--student", action="append", metavar="KEY=VALUE", help="of its config; repeatable")
    parser.add_argument("--to", type=Path, default=CACHE / "distillation", help="logs and runs (%(default)s)")
    options = parser.parse_args()
    logging.getLogger("recmoe").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    if options.teachers > len(options.seeds):
        parser.error(f"--teachers {options.teachers} needs as many --seeds, got {len(options.seeds)}")
    log = find_log(options.data, options.to / "logs", rows=options.rows)
    metrics: dict[tuple[str, str], list[float]] = defaultdict(list)
    for seed in options.seeds:
        trained = train_all(log.config, seed, options)
        for name, one in trained.items():
            for metric, value in one.metrics.items():
                metrics[metric, name].append(value)
            print(f"seed {seed}, {name}: {one.metrics}", flush=True)
    _print_metrics(metrics)
    _print_times({name: one.bundle for name, one in trained.items()}, log.config.parent / "test.parquet")


def train_all(config: Path, seed: int, options: argparse.Namespace) -> dict[str, Trained]:
    """The three models of a seed; what an earlier start has trained stays.

    Where the student is configured as its teachers are, the teacher of a seed is that student alone.
    """
    folder = options.to / f"{config.parent.name}"
    of_teacher, of_student = options.teacher or TEACHER, options.student or STUDENT
    place = options.seeds.index(seed)
    seeds = (options.seeds[place:] + options.seeds[:place])[: options.teachers]
    teachers = [_train(config, folder / f"teacher-{one}", of_teacher, one) for one in seeds]
    weight = f"model.distillation.weight={options.weight}"
    taught_by = [str(one.bundle) for one in teachers]
    student = _train(config, folder / f"student-{seed}", (*of_student, weight), seed, taught_by=taught_by)
    is_same = list(of_teacher) == list(of_student)
    alone = teachers[0] if is_same else _train(config, folder / f"alone-{seed}", of_student, seed)
    return {"teacher": teachers[0], "student": student, "student alone": alone}


def _train(
    config: Path, folder: Path, overrides: Sequence[str], seed: int, *, taught_by: Sequence[str] = ()
) -> Trained:
    limits = f"ranking.max_candidates={max(NUM_CANDIDATES)}"
    fixed = [limits, f"seed={seed}", "tracking.kind=none", "evaluation.baselines=[]"]
    experiment = load_experiment(config, [*overrides, *fixed])
    origin = find_origin(*taught_by, made_by="distil") if taught_by else None
    result = train_run(experiment, folder, resume=folder.exists(), is_quiet=True, origin=origin)
    assert result.report is not None, "the log has a test split"
    names = chief_metrics(experiment)
    return Trained(result.folder.bundle, {name: result.report.value(name) for name in names})


def rank_ms(bundles: dict[str, Path], rows: Path, num_candidates: int) -> dict[str, list[float]]:
    """Milliseconds of requests to each bundle, which take turns."""
    rankers = {name: Ranker.load(bundle) for name, bundle in bundles.items()}
    table = pa.Table.from_batches([next(pq.ParquetFile(rows).iter_batches(num_candidates))])
    schema = next(iter(rankers.values())).bundle.encoder.schema
    shown = list(requests_of_rows(schema, table))
    # All candidates of these lists, as if one user had been shown them.
    candidates = [candidate for one in shown for candidate in one["candidates"]]
    request = RankRequest.model_validate(shown[0] | {"candidates": candidates})
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(NUM_WARM + NUM_TIMED):
        for name, ranker in rankers.items():
            times[name].append(ranker.rank(request).timing_ms["total"])
    return {name: values[NUM_WARM:] for name, values in times.items()}


def _print_metrics(metrics: dict[tuple[str, str], list[float]]) -> None:
    rows = []
    for metric in dict.fromkeys(name for name, _ in metrics):
        teacher, student, alone = (mean(metrics[metric, name]) for name in NAMES)
        sign = 1 if metric_best(metric) == "highest" else -1
        rows.append([metric, *(f"{value:.4f}" for value in (teacher, student, alone)),
                     *(f"{sign * (value - teacher) / teacher:+.2%}" for value in (student, alone))])  # fmt: skip
    print_columns(["mean over seeds", *NAMES, "student keeps", "alone"], rows)


def _print_times(bundles: dict[str, Path], rows: Path) -> None:
    lines = []
    # As the server does: a thread ranks one request, and another the next.
    torch.set_num_threads(1)
    for num_candidates in NUM_CANDIDATES:
        times = {name: median(values) for name, values in rank_ms(bundles, rows, num_candidates).items()}
        faster = times["teacher"] / times["student"]
        lines.append([f"{num_candidates:,}", *(f"{times[name]:.1f}" for name in NAMES), f"{faster:.1f} times"])
    print_columns(["candidates", *(f"{name}, ms" for name in NAMES), "student faster"], lines)


if __name__ == "__main__":
    main()

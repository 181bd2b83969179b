"""What hidden ids teach where few rows have labels: a training on these alone, and one that begins pre-trained.

python -m benchmarks.pretraining --logs synthetic census --labelled 300 2000 --seeds 0 1 2

Of the training rows of a log some have labels, drawn by seed. ``recmoe pretrain`` reads all rows and no label; then the
labelled rows are trained on, from the pre-training and from the start. Both stop by the same validation split.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.comparison.logs import NAMES, SYNTHETIC, find_log
from recmoe.cli.output import print_columns
from recmoe.experiment import load_experiment
from recmoe.growth.earlier import WarmStart
from recmoe.runs.train import train_run
from recmoe.runs.warm_start import find_warm_start

QUIET = ("evaluation.baselines=[]", "evaluation.num_resamples=0", "evaluation.slices=[]", "tracking={kind: none}")
FEW_ROWS = (
    "training.batch_size=128",
    "training.epochs=30",
    "training.early_stopping={metric: score, patience: 4}",
)
"""How the labelled rows are trained on: small steps, until validation gets worse."""


def write_labelled(config: Path, to: Path, *, num_rows: int, seed: int) -> None:
    """Some rows of the training split, which lies next to the config."""
    rows = pq.read_table(config.parent / "train.parquet")
    chosen = np.random.default_rng(seed).choice(rows.num_rows, num_rows, replace=False)
    pq.write_table(rows.take(np.sort(chosen)), to)


def pretrained(config: Path, root: Path, overrides: Sequence[str]) -> tuple[WarmStart, float]:
    """A pre-training on all rows, and what it saves of the loss of frequencies."""
    experiment = load_experiment(config, ["model.pretraining={}", *QUIET, *overrides])
    folder = train_run(experiment, root, resume=False, is_quiet=True).folder
    report = folder.pretraining_report()
    assert report is not None
    return find_warm_start(str(root)), report["score"]


def aucs(config: Path, root: Path, overrides: Sequence[str], start: WarmStart | None) -> dict[str, float]:
    """The AUCs of a training on the test split, by task."""
    experiment = load_experiment(config, [*QUIET, *overrides])
    report = train_run(experiment, root, resume=False, is_quiet=True, warm_start=start).report
    assert report is not None, "there is a test split"
    return {name: value for name, value in report.values().items() if ".auc[" in name}


Pair = tuple[dict[str, float], dict[str, float]]
"""AUCs without and with a pre-training."""


def compare(
    config: Path, *, labelled: Sequence[int], seed: int, pretraining: Sequence[str], few_rows: Sequence[str]
) -> dict[int, Pair]:
    """What one pre-training does to trainings, by their number of labelled rows."""
    found: dict[int, Pair] = {}
    with tempfile.TemporaryDirectory(prefix="recmoe-") as name:
        folder = Path(name)
        start, saved = pretrained(config, folder / "pretrained", [f"seed={seed}", *pretraining])
        print(f"{config.parent.name}, seed {seed}: saved {saved:.4f}", file=sys.stderr, flush=True)
        for num_rows in labelled:
            rows = folder / f"labelled-{num_rows}.parquet"
            write_labelled(config, rows, num_rows=num_rows, seed=seed)
            few = [f"data.train={rows}", f"seed={seed}", *FEW_ROWS, *few_rows]
            alone = aucs(config, folder / f"alone-{num_rows}", few, None)
            found[num_rows] = alone, aucs(config, folder / f"from-{num_rows}", few, start)
            print(num_rows, *found[num_rows], sep=" · ", file=sys.stderr, flush=True)
    return found


def rows_of(pairs: Sequence[Pair]) -> list[tuple[str, float, float, float, str]]:
    """Per AUC: its mean over seeds without and with a pre-training, the difference, and that of every seed."""
    rows = []
    for metric in pairs[0][0]:
        differences = [after[metric] - alone[metric] for alone, after in pairs]
        alone, after = (statistics.fmean(one[metric] for one in ones) for ones in zip(*pairs, strict=True))
        by_seed = " ".join(f"{value:+.4f}" for value in differences)
        rows.append((metric, alone, after, statistics.fmean(differences), by_seed))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pretraining", description=__doc__)
    parser.add_argument("--logs", nargs="+", default=[SYNTHETIC], choices=NAMES)
    parser.add_argument("--rows", type=int, default=60_000, help="of all splits of a log together")
    parser.add_argument("--labelled", type=int, nargs="+", default=[2_000], help="training rows with labels")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--pretraining", nargs="+", default=[], metavar="KEY=VALUE", help="of the pre-training")
    parser.add_argument("--training", nargs="+", default=[], metavar="KEY=VALUE", help="of both trainings")
    given = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory(prefix="recmoe-") as folder:
        for name in given.logs:
            config = find_log(name, Path(folder), rows=given.rows).config
            found = [
                compare(
                    config,
                    labelled=given.labelled,
                    seed=seed,
                    pretraining=given.pretraining,
                    few_rows=given.training,
                )
                for seed in given.seeds
            ]
            for num_rows in given.labelled:
                rows += [(name, num_rows, *row) for row in rows_of([of_seed[num_rows] for of_seed in found])]
    print_columns(["log", "labelled", "metric", "labels alone", "pre-trained", "difference", "by seed"], rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a start found by meta-learning gains where a domain is new: Census, with three kinds of education held back.

RECMOE_DATA=FOLDER python -m benchmarks.adaptation --to runs/adaptation --seeds 0 1 2

Every fifth kind of education by its number of rows is held back from training. Of each, some rows are adapted to and
others are measured: by the trained model, and by starts of `recmoe metalearn`, before and after the same steps.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import chain, islice, product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from scipy import stats

from benchmarks.plain_logs import FOLDERS
from recmoe.cli.output import print_columns
from recmoe.data.datasets import import_dataset
from recmoe.evaluation.metrics.auc import AucConfig
from recmoe.experiment import load_experiment
from recmoe.features.batch import Batch
from recmoe.model import MultiTaskRanker
from recmoe.runs.derived import Derivation
from recmoe.runs.few_rows import copy_of, drawn, encoded
from recmoe.runs.metalearn import metalearn, rows_by_domain
from recmoe.runs.origin import find_origin
from recmoe.runs.train import train_run

Floats = NDArray[np.float64]
Row = tuple[object, ...]

DOMAIN = "education"
HELD_BACK = slice(2, None, 5)
"""Of the values, most frequent first."""
SPLITS = ("train", "validation", "test")
NUM_MEASURED = 2_500
"""Rows of a domain that are measured."""
NUM_DRAWS = 3
"""Of the few rows of a domain."""
TRAINING = (
    "training.epochs=4",
    "tables.backend=plain",
    "evaluation={baselines: [], slices: []}",
    "tracking={kind: none}",
)
STARTS = {"as trained": None, "reptile": "adaptation.meta.kind=reptile", "fomaml": "adaptation.meta.kind=fomaml"}
QUALITIES = ("log loss income", "log loss never_married", "AUC income")

Measured = dict[tuple[str, int, int], Floats]
"""By domain, few rows and steps: the qualities, means over draws."""


def hold_back(folder: Path) -> list[str]:
    """Cut the splits in two: ``SPLIT_rest.parquet`` without the domains held back, and ``SPLIT_held.parquet``.

    Returns:
        domains: those held back.
    """
    tables = {split: pq.read_table(folder / f"{split}.parquet") for split in SPLITS}
    counts = pa.concat_tables(tables.values()).group_by(DOMAIN).aggregate([([], "count_all")])
    ordered = counts.sort_by([("count_all", "descending"), (DOMAIN, "ascending")])
    held: list[str] = ordered[DOMAIN].to_pylist()[HELD_BACK]
    for split, table in tables.items():
        is_held = pc.is_in(table[DOMAIN], pa.array(held))
        pq.write_table(table.filter(pc.invert(is_held)), folder / f"{split}_rest.parquet")
        pq.write_table(table.filter(is_held), folder / f"{split}_held.parquet")
    return held


def measure(bundle: Path, log: Path, *, num_rows: Sequence[int], steps: Sequence[int]) -> Measured:
    """A model on the domains held back, after numbers of steps on few rows of each; 0 for none."""
    origin = find_origin(str(bundle), made_by="adapt")
    found: dict[tuple[str, int, int], list[Floats]] = {}
    with tempfile.TemporaryDirectory(prefix="recmoe-") as cache:
        derivation = Derivation.of(origin.load(), cache_dir=Path(cache))
        stream = derivation.few_rows([f"{log}/{split}_held.parquet" for split in SPLITS])
        rows = encoded(stream, derivation.encoder, cache_dir=Path(cache))
        copy = copy_of(origin, derivation.config, derivation.encoder)
        rule = derivation.config.adaptation
        learner = rule.build(copy.model, is_new={})
        for domain, of_n in rows_by_domain(stream, DOMAIN).items():
            mixed = np.random.default_rng(0).permutation(of_n)
            measured = rows.batch(np.sort(mixed[:NUM_MEASURED]))
            for few, draw in product(num_rows, range(NUM_DRAWS)):
                random = np.random.default_rng(draw)
                of_few = np.sort(random.choice(mixed[NUM_MEASURED:], few, replace=False))
                learner.restart()
                torch.manual_seed(draw)
                batches = drawn(rows, of_few, batch_size=rule.batch_size, block=1, random=random)
                for step in chain([0], learner.steps(islice(batches, max(steps)))):
                    if step in steps:
                        found.setdefault((domain, few, step), []).append(_quality(copy.model.ranker, measured))
    return {key: np.mean(values, axis=0) for key, values in found.items()}


@torch.no_grad()
def _quality(ranker: MultiTaskRanker, batch: Batch) -> Floats:
    """The qualities of a model on some rows."""
    logits_BZ = ranker.eval()(batch).logits_BZ
    labels_BT, weights_BT = ranker.tasks.targets(batch.labels_BL)
    losses_T = ranker.tasks.losses(ranker.tasks.row_losses(logits_BZ, labels_BT, weights_BT))
    auc = AucConfig().build()
    auc.update(logits_BZ[:, 0].double().numpy(), labels_BT[:, 0].numpy(), None)
    return np.array([*losses_T.tolist(), auc.compute().values_R[0]])


def difference(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """The mean of paired differences, with its 95 % interval by Student's t."""
    differences = np.subtract(after, before)
    half = stats.t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / len(differences) ** 0.5
    return differences.mean(), differences.mean() - half, differences.mean() + half


def table(found: Mapping[str, Mapping[int, Measured]], *, num_rows: Sequence[int], steps: Sequence[int]) -> list[Row]:
    """Lines of means over seeds and domains; each start against the trained model after the same steps.

    Args:
        found: by start and seed.
    """
    trained = found["as trained"]
    lines: list[Row] = []
    for few, step, start in product(num_rows, steps, found):
        if step == 0 and few != num_rows[0]:
            continue
        cells = [(seed, key) for seed, one in trained.items() for key in one if key[1:] == (few, step)]
        now, then = (np.array([of_start[seed][key] for seed, key in cells]) for of_start in (found[start], trained))
        against = [""] * 3
        if start != "as trained":
            against = [f"{value:+.4f}" for value in difference(then[:, :2].sum(axis=1), now[:, :2].sum(axis=1))]
        lines.append((few if step else "", step, start, *now.mean(axis=0), *against))
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adaptation", description=__doc__)
    parser.add_argument("--to", type=Path, required=True, help="folder of the log and the models; goes on where it was")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 300], help="few rows of a domain")
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 5, 10])
    parser.add_argument("--starts", nargs="+", default=list(STARTS)[1:], choices=list(STARTS)[1:])
    parser.add_argument("--rounds", type=int, default=200, help="of meta-training")
    given = parser.parse_args(arguments)
    data = os.environ.get("RECMOE_DATA")
    if data is None:
        parser.error("RECMOE_DATA must name the folder of the published data sets")
    log = given.to / "log"
    path = import_dataset("census", Path(data) / FOLDERS["census"], log)
    print("held back:", "; ".join(hold_back(log)), file=sys.stderr)
    rest = [f"data.{split}={log}/{split}_rest.parquet" for split in SPLITS]
    found: dict[str, dict[int, Measured]] = {start: {} for start in ("as trained", *given.starts)}
    for seed, start in product(given.seeds, found):
        run, override = given.to / f"trained-{seed}", STARTS[start]
        bundle = run / "bundle" if override is None else given.to / f"{start}-{seed}"
        if override is None and not bundle.exists():
            config = load_experiment(path, [f"seed={seed}", *TRAINING, *rest])
            train_run(config, run, resume=run.exists(), is_quiet=True)
        if override is not None and not bundle.exists():
            origin = find_origin(str(run), made_by="metalearn")
            overrides = [override, f"adaptation.meta.rounds={given.rounds}"]
            with tempfile.TemporaryDirectory(prefix="recmoe-") as cache:
                metalearn(origin, bundle, domain=DOMAIN, overrides=overrides, cache_dir=Path(cache))
        found[start][seed] = measure(bundle, log, num_rows=given.rows, steps=given.steps)
        print(f"{start}, seed {seed}: measured", file=sys.stderr, flush=True)
    headers = ["rows", "steps", "start", *QUALITIES, "sum of log losses, difference", "low", "high"]
    print_columns(headers, table(found, num_rows=given.rows, steps=given.steps))
    return 0


if __name__ == "__main__":
    sys.exit(main())

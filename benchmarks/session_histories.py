"""What the events of a session tell of its next click: trivago with histories as sequences, against its config.

RECMOE_DATA=FOLDER python -m benchmarks.session_histories --seeds 0 1 2

The config's own features count by hand what a session did with each hotel. So every encoder is tried twice: with these
counts, and without them, where the history alone can tell.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.plain_logs import FOLDERS
from recmoe.cli.output import print_columns
from recmoe.data.datasets import import_dataset
from recmoe.evaluation.report import Report
from recmoe.evaluation.seeds import mean_report
from recmoe.experiment import load_experiment
from recmoe.runs.train import train_run

METRIC = "click.ndcg@10[all]"
COUNTS = ("num_interactions", "num_clickouts", "s_since_interaction", "is_last_item", "offset_from_last", "last_item")
"""Features that are made by hand of the session's events."""
HOTEL_WIDTH = 32
HOTEL_STD = 1.0
"""Of initial table vectors: hotels are told apart by them, though most have too few rows to learn one."""
ENCODERS: dict[str, dict[str, Any]] = {
    "mean": {"kind": "mean"},
    "target attention": {"kind": "target_attention"},
    "transformer": {"kind": "transformer"},
}
LIST = {
    "kind": "id_list",
    "side": "context",
    "table": "item",
    "pooling": "mean",
    "encoding": {"kind": "vocabulary", "min_count": 50},
}
HISTORIES = ("none", "list of hotels", *ENCODERS)


def with_history(values: dict[str, Any], history: str, *, has_counts: bool) -> dict[str, Any]:
    """The config with a history, which it has not by itself.

    Args:
        values: of the config that the importer wrote.
        history: one of ``HISTORIES``: the last hotels in one mean, or the last events by an encoder.
        has_counts: whether the features made by hand stay.
    """
    features = dict(values["inputs"]["features"])
    tables = dict(values["tables"])
    if history == "list of hotels":
        features["session_items"] = LIST
    if history in ENCODERS:
        features["hotel"] = {
            "kind": "id",
            "column": "item_id",
            "side": "item",
            "width": HOTEL_WIDTH,
            "encoding": {"kind": "hash"},
        }
        features["history"] = {
            "kind": "sequence",
            "side": "context",
            "columns": {
                "hotel": {"column": "history_items", "table": "hotel"},
                "action": {"column": "history_actions"},
            },
            "time": "history_times",
            "now": "timestamp",
            "max_length": 30,
            "encoder": ENCODERS[history],
        }
        tables["init_std"] = HOTEL_STD
    if not has_counts:
        features = {name: feature for name, feature in features.items() if name not in COUNTS}
    return {**values, "inputs": {**values["inputs"], "features": features}, "tables": tables}


def report_of(values: dict[str, Any], folder: Path, seed: int) -> Report:
    """That of one training."""
    # The importer's config says where its data is from its own folder.
    path = folder / "tried.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    config = load_experiment(path, [f"seed={seed}", "evaluation.baselines=[]", "tracking={kind: none}"])
    with tempfile.TemporaryDirectory(prefix="recmoe-") as run:
        report = train_run(config, Path(run) / "run", resume=False, is_quiet=True).report
    assert report is not None, "there is a test split"
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.session_histories", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--histories", nargs="+", default=list(HISTORIES), choices=HISTORIES)
    given = parser.parse_args(arguments)
    data = os.environ.get("RECMOE_DATA")
    if data is None:
        parser.error("RECMOE_DATA must name the folder of the published data sets")
    with tempfile.TemporaryDirectory(prefix="recmoe-") as folder:
        config = import_dataset("trivago", Path(data) / FOLDERS["trivago"], Path(folder))
        values = yaml.safe_load(config.read_text(encoding="utf-8"))
        rows = []
        for has_counts in (True, False):
            for history in given.histories:
                tried = with_history(values, history, has_counts=has_counts)
                reports = [report_of(tried, Path(folder), seed) for seed in given.seeds]
                rows.append((history, "yes" if has_counts else "no", *_in_words(reports)))
                print(*rows[-1], sep=" · ", file=sys.stderr, flush=True)
    print_columns(["history", "counts by hand", METRIC, "interval", "by seed"], rows)
    return 0


def _in_words(reports: Sequence[Report]) -> tuple[str, str, str]:
    """The mean, its interval, and every seed's number."""
    (row,) = (row for row in mean_report(reports).rows if row.name == METRIC)
    values = [report.value(METRIC) for report in reports]
    known = [value for value in values if value is not None]
    return f"{statistics.fmean(known):.4f}", f"{row.low:.3f} to {row.high:.3f}", " ".join(f"{v:.4f}" for v in known)


if __name__ == "__main__":
    sys.exit(main())

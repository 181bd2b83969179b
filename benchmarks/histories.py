"""What encoders of histories learn of a log in which a click depends on the user's last three items.

python -m benchmarks.histories --seeds 0 1 2

Every item has a category. A candidate is clicked the likelier, the more of the last three items of the user are of its
category; all items before those are noise. The truth behind the labels has an AUC of its own: nothing can be better.
Nothing that does not know the order of the items can be better than what a bag of them tells.
"""

# N rows, L entries of a history

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
import pyarrow as pa

import recmoe
from recmoe.cli.output import print_columns
from recmoe.data.splits import Split
from recmoe.evaluation.metrics.auc import Auc

NUM_ITEMS, NUM_CATEGORIES, MAX_LENGTH = 400, 8, 20
LAST = 3
"""Items that matter."""
GAIN = 2.0
"""What each of them that is of the candidate's category adds to the log-odds of a click."""
ENCODERS = ("none", "mean", "sum", "target_attention", "transformer")


@dataclass(frozen=True)
class HistoryLog:
    """Rows with a history, and what the truth behind their labels reaches."""

    rows: pa.Table
    truth_N: np.ndarray
    """Probability of a click."""
    orderless_N: np.ndarray
    """The same where the order of the history is not known."""

    @classmethod
    def draw(cls, num_rows: int, random: np.random.Generator) -> "HistoryLog":
        """Draw rows; an item's category is its number modulo the number of categories."""
        lengths_N = random.integers(0, MAX_LENGTH + 1, num_rows)
        seen_NL = random.integers(0, NUM_ITEMS, (num_rows, MAX_LENGTH))
        item_N = random.integers(0, NUM_ITEMS, num_rows)
        categories_NL, category_N = seen_NL % NUM_CATEGORIES, item_N % NUM_CATEGORIES
        is_alike_NL = categories_NL == category_N[:, None]
        from_end_NL = lengths_N[:, None] - 1 - np.arange(MAX_LENGTH)
        matters_NL = (from_end_NL >= 0) & (from_end_NL < LAST)
        truth_N = click_rate((is_alike_NL & matters_NL).sum(axis=1))
        is_there_NL = np.arange(MAX_LENGTH) < lengths_N[:, None]
        ends = pa.array(np.concatenate([[0], lengths_N.cumsum()]), pa.int32())
        return cls(
            pa.table(
                {
                    "seen": pa.ListArray.from_arrays(ends, pa.array(seen_NL[is_there_NL])),
                    "seen_categories": pa.ListArray.from_arrays(ends, pa.array(categories_NL[is_there_NL])),
                    "item": pa.array(item_N),
                    "category": pa.array(category_N),
                    "click": pa.array((random.random(num_rows) < truth_N).astype(np.int64)),
                }
            ),
            truth_N,
            _orderless((is_alike_NL & is_there_NL).sum(axis=1), lengths_N),
        )

    def auc(self, predictions_N: np.ndarray) -> float:
        """What predictions would reach."""
        auc = Auc()
        auc.update(predictions_N, self.rows["click"].to_numpy().astype(np.float64))
        return float(auc.compute().values_R[0])


def click_rate(num_alike: np.ndarray) -> np.ndarray:
    """Probability of a click, by how many of the items that matter are of the candidate's category."""
    rate: np.ndarray = 1.0 / (1.0 + np.exp(2.0 - GAIN * num_alike))
    return rate


def _orderless(alike_N: np.ndarray, lengths_N: np.ndarray) -> np.ndarray:
    """The mean of the rate over all orders of a history of which so many items are alike."""
    table = np.zeros((MAX_LENGTH + 1, MAX_LENGTH + 1))
    for length in range(MAX_LENGTH + 1):
        taken = min(LAST, length)
        for alike in range(length + 1):
            ways = [comb(alike, k) * comb(length - alike, taken - k) for k in range(taken + 1)]
            table[length, alike] = np.dot(ways, click_rate(np.arange(taken + 1))) / comb(length, taken)
    found: np.ndarray = table[lengths_N, alike_N]
    return found


def config_of(encoder: str, epochs: int) -> dict[str, Any]:
    """A small model that reads the candidate, and the history by an encoder or not at all."""
    features: dict[str, Any] = {"item": {"kind": "id"}, "category": {"kind": "id"}}
    if encoder != "none":
        columns = {
            "item": {"column": "seen", "table": "item"},
            "category": {"column": "seen_categories", "table": "category"},
        }
        features["history"] = {"kind": "sequence", "columns": columns, "encoder": {"kind": encoder}}
    return {
        "name": "histories",
        "inputs": {"width": 16, "features": features},
        "tasks": {"click": {"kind": "binary", "label": "click"}},
        "model": {"architecture": {"kind": "shared_bottom", "hidden": [64, 32]}, "unknown_share": 0.0},
        "tables": {"optimizer": {"kind": "adagrad", "lr": 0.05}, "init_std": 1.0},
        "training": {
            "epochs": epochs,
            "batch_size": 512,
            "device": "cpu",
            "precision": "fp32",
            "dense_optimizer": {"kind": "adamw", "lr": 0.003},
        },
        "evaluation": {"num_resamples": 0, "baselines": []},
        "tracking": {"kind": "none"},
    }


def auc_of(encoder: str, splits: dict[Split, Any], *, epochs: int, seed: int) -> float:
    """The test AUC of one run."""
    fitted = recmoe.fit(splits, config=config_of(encoder, epochs), seed=seed, quiet=True)
    metrics = fitted.metrics()
    return float(metrics[metrics["metric"] == "auc"]["value"].iloc[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.histories", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="of the training split; a tenth each for the others")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS), choices=ENCODERS)
    given = parser.parse_args(arguments)
    found: dict[str, list[float]] = {encoder: [] for encoder in given.encoders}
    truths: dict[str, list[float]] = {"the truth without order": [], "the truth": []}
    for seed in given.seeds:
        random = np.random.default_rng(seed)
        sizes: dict[Split, int] = {"train": given.rows, "validation": given.rows // 10, "test": given.rows // 10}
        logs = {split: HistoryLog.draw(num_rows, random) for split, num_rows in sizes.items()}
        test = logs["test"]
        for name, predictions_N in zip(truths, (test.orderless_N, test.truth_N), strict=True):
            truths[name].append(test.auc(predictions_N))
        splits: dict[Split, Any] = {split: log.rows for split, log in logs.items()}
        for encoder in given.encoders:
            found[encoder].append(auc_of(encoder, splits, epochs=given.epochs, seed=seed))
    rows = [
        (name, f"{np.mean(aucs):.4f}", f"{min(aucs):.4f} – {max(aucs):.4f}")
        for name, aucs in {**found, **truths}.items()
    ]
    print_columns(["history", "test AUC", "over seeds"], rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())

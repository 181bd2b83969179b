"""Losses of the first 20 steps of every architecture and trunk, as they were when last looked at.

A change that should not move the numbers must not. One that should, such as another initialisation, renews the
files, and says why in its commit::

    RECMOE_RENEW_GOLDEN=1 python -m pytest tests/golden
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.config import config_from_dict
from recmoe.experiment import ExperimentConfig
from recmoe.runs.train import RunResult
from recmoe.training import loop

Train = Callable[..., RunResult]

NUM_STEPS = 20
TASKS = ("ctr", "cvr", "ctcvr", "watch")
RELATIVE_TOLERANCE = 1e-5
"""Other processors add in another order; a change of the arithmetic moves more than the last digits."""
SMALL: dict[str, dict[str, Any]] = {
    "single_task": {"hidden": [8]},
    "shared_bottom": {"hidden": [8]},
    "omoe": {"num_experts": 3, "expert_hidden": [8]},
    "mmoe": {"num_experts": 3, "expert_hidden": [8]},
    "cgc": {"num_task_experts": 1, "num_shared_experts": 2, "expert_hidden": [8]},
    "ple": {"num_levels": 2, "num_task_experts": 1, "num_shared_experts": 1, "expert_hidden": [8]},
    "cross_stitch": {"hidden": [8, 4]},
    "adatt": {"num_levels": 2, "num_task_experts": 2, "expert_hidden": [8]},
    "hierarchical": {"num_groups": 2, "num_group_experts": 2, "expert_hidden": [8]},
    "deepseek_moe": {"num_routed_experts": 5, "expert_hidden": [4, 8], "gate": {"kind": "top_k", "k": 2}},
    "home": {"groups": {"rates": ["ctr", "cvr"], "watching": ["watch"]}, "feature_rank": 2, "expert_hidden": [8]},
    "smes": {"num_experts": 4, "num_joint": 1, "num_private": 1, "expert_hidden": [8]},
    "star": {"domain": "user", "max_domains": 4, "hidden": [8], "auxiliary_hidden": 4},
    "resflow": {"chain": ["ctr", "cvr"], "hidden": [8, 4]},
    "dbmtl": {
        "relations": {"cvr": ["ctr"], "watch": ["cvr", "ctr"]},
        "shared_hidden": [8],
        "hidden": [6],
        "relation_hidden": [5, 4],
    },
    "m3oe": {"domain": "user", "max_domains": 4, "star_hidden": 8, "representation": 6, "expert_hidden": [8]},
    "thor": {"num_levels": 2, "num_experts": 3, "expert_hidden": [8]},
    "moefied": {"hidden": [8, 4], "num_experts": 4, "k": 2},
    "local_experts": {"num_experts": 3, "expert_hidden": [8]},
}
TRUNKS: dict[str, dict[str, Any]] = {
    "rank_mixer": {"tokens": 3, "head_width": 2, "num_experts": 2},
    "attention_heads": {"tokens": 3, "width": 6, "num_heads": 4, "head_width": 4, "out": 8},
}
"""Below the architecture that is the default."""


def write_log(path: Path) -> None:
    """160 rows made by arithmetic alone: random generators may change with their libraries."""
    rows = range(160)
    click = [int((i * 7 + i // 5) % 3 == 0) for i in rows]
    log = {
        "user": [f"u{i * 5 % 11}" for i in rows],
        "tags": [[f"t{(i + k) % 6}" for k in range(i % 4)] for i in rows],
        "age": [None if i % 13 == 0 else 18.0 + i * 17 % 50 for i in rows],
        "item": [f"i{i * 3 % 17}" for i in rows],
        "price": [1.0 + i * 29 % 97 for i in rows],
        "click": click,
        "purchase": [int(c and i % 2 == 0) for i, c in zip(rows, click, strict=True)],
        "seconds": [float(i * 11 % 60) if c else None for i, c in zip(rows, click, strict=True)],
    }
    pq.write_table(pa.table(log), path)


def config_of(kind: str, log: Path) -> ExperimentConfig:
    architecture = kind if kind in SMALL else "mmoe"
    model: dict[str, Any] = {"architecture": {"kind": architecture, **SMALL[architecture]}}
    if kind in TRUNKS:
        model["trunk"] = {"kind": kind, **TRUNKS[kind]}
    numeric = {"kind": "numeric", "forms": ["value", "bucket", "vector"], "buckets": {"kind": "quantile", "count": 4}}
    return config_from_dict(
        ExperimentConfig,
        {
            "name": "golden",
            "seed": 1,
            "data": {"train": str(log)},
            "inputs": {
                "width": 4,
                "features": {
                    "user": {"kind": "id", "side": "user"},
                    "tags": {"kind": "id_list", "side": "user"},
                    "age": {**numeric, "side": "user"},
                    "item": {"kind": "id"},
                    "price": {**numeric, "log1p": True},
                },
            },
            "tasks": {
                "ctr": {"kind": "binary", "label": "click"},
                "cvr": {"kind": "binary", "label": "purchase", "space": "click"},
                "ctcvr": {"kind": "product", "of": ["ctr", "cvr"], "label": "purchase"},
                "watch": {
                    "kind": "regression",
                    "label": "seconds",
                    "space": "click",
                    "transform": "log1p",
                    "predicts": "median",
                },
            },
            "model": {**model, "towers": {"hidden": [4]}, "balance": 0.01},
            "tables": {"backend": "plain", "init_std": 0.1, "optimizer": {"kind": "rowwise_adagrad", "lr": 0.05}},
            "training": {
                "batch_size": 16,
                "epochs": 2,
                "device": "cpu",
                "precision": "fp32",
                "dense_optimizer": {"kind": "adamw", "lr": 0.01, "weight_decay": 0.01},
                "schedule": {"kind": "cosine", "warmup_steps": 5},
            },
            "tracking": {"kind": "none"},
        },
    )


def losses_of(kind: str, folder: Path, train: Train) -> list[list[float]]:
    """A row per step: the loss of every task."""

    write_log(folder / "train.parquet")
    config = config_of(kind, folder / "train.parquet")
    run = train(config, folder / "run").folder
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [[line[f"train/{task}/loss"] for task in TASKS] for line in lines]


@pytest.mark.parametrize("kind", [*SMALL, *TRUNKS])
def test_losses_are_those_of_the_file(kind: str, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    path = Path(__file__).with_name(f"{kind}.txt")

    losses = losses_of(kind, tmp_path, train)

    assert len(losses) == NUM_STEPS
    if "RECMOE_RENEW_GOLDEN" in os.environ:
        lines = [f"{step:4d} " + " ".join(f"{loss:.8f}" for loss in row) for step, row in enumerate(losses, start=1)]
        path.write_text("\n".join([f"step {' '.join(TASKS)}", *lines, ""]))
    header, *lines = path.read_text().splitlines()
    assert header.split() == ["step", *TASKS]
    for step, (line, row) in enumerate(zip(lines, losses, strict=True), start=1):
        expected = [float(text) for text in line.split()]
        assert expected[0] == step
        assert row == pytest.approx(expected[1:], rel=RELATIVE_TOLERANCE), f"step {step}"

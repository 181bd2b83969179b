"""Sharded tables in two real processes over gloo, against one process and plain tables."""

import json
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from recmoe.training.runtime import start_runtime

RunProcesses = Callable[..., None]
SCRIPT = Path(__file__).with_name("sharded_tables_worker.py")
CASES = [
    {"optimizer": {"kind": "rowwise_adagrad"}},
    {"optimizer": {"kind": "adagrad"}, "sharding": {"tags": "column_wise", "type": "data_parallel"}},
    {"optimizer": {"kind": "adagrad"}, "sharding": {"tags": "column_wise", "type": "row_wise"}, "history": True},
]


EXACT: dict[str, dict[str, Any]] = {
    "row_wise": {"sharding": {"tags": "row_wise", "type": "row_wise"}},
    "row_wise beside others": {"sharding": {"tags": "row_wise", "type": "data_parallel"}},
    "table_row_wise": {"sharding": {"tags": "table_row_wise"}},
    "grid_shard": {"sharding": {"tags": "grid_shard"}, "optimizer": {"kind": "adagrad"}},
    "table_column_wise": {"sharding": {"tags": "table_column_wise"}, "optimizer": {"kind": "adagrad"}},
    "distinct ids": {"dedup_ids": True},
    "pipelined": {"pipeline": "on", "sharding": {"tags": "row_wise"}},
    "pipelined, distinct ids": {"pipeline": "on", "dedup_ids": True},
    "history": {"history": True},
    "history, row_wise": {"history": True, "sharding": {"tags": "row_wise", "type": "row_wise"}},
    "history, column_wise": {
        "history": True,
        "sharding": {"tags": "column_wise", "type": "row_wise"},
        "optimizer": {"kind": "adagrad"},
    },
    "history, distinct ids": {"history": True, "dedup_ids": True},
    "history, pipelined": {"history": True, "pipeline": "on", "sharding": {"tags": "row_wise"}},
    "history, pipelined, distinct ids": {"history": True, "pipeline": "on", "dedup_ids": True},
}
ROUNDED: dict[str, dict[str, Any]] = {
    f"{forward} {backward} {kind}{', history' * has_history}": {
        "communication": {"forward": forward, "backward": backward},
        "sharding": {"tags": kind},
        "history": has_history,
    }
    for forward, backward in (("fp16", "fp16"), ("bf16", "bf16"), ("int8", "fp32"))
    for kind in ("table_wise", "row_wise")
    for has_history in (False, True)
}


@pytest.mark.cluster
@pytest.mark.parametrize("values", CASES, ids=str)
def test_two_processes_equal_one_and_their_checkpoint_goes_on_in_one(
    values: dict[str, Any], tmp_path: Path, worker: ModuleType, run_processes: RunProcesses
) -> None:
    start_runtime(device="cpu")

    run_processes("train", tmp_path, {"backend": "torchrec", **values})

    expected = torch.load(tmp_path / "weights.pt")
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert sorted({rank for row in plan for rank in row["ranks"]}) == [0, 1]
    same = {"optimizer": values["optimizer"], "history": values.get("history", False)}
    plain = {"backend": "plain", **same}
    unbroken = worker.Run(tmp_path / "none", plain, rank=0, world_size=1)
    unbroken.train(0, 1, 2, 3)
    runs = {"unbroken in plain tables": unbroken}
    for name, other in {"plain": plain, "sharded": {"backend": "torchrec", **same}}.items():
        resumed = worker.Run(tmp_path / "checkpoints", other, rank=0, world_size=1)
        assert resumed.store.load(2) == {"step": 2}
        resumed.train(2, 3)
        runs[f"resumed in one process, {name}"] = resumed
    for name, run in runs.items():
        for key, weight in run.weights().items():
            torch.testing.assert_close(weight, expected[key], rtol=1e-5, atol=1e-6, msg=f"{name}: {key}")


@pytest.mark.cluster
def test_every_kind_of_sharding_and_exchange_trains_the_plain_tables(
    tmp_path: Path, worker: ModuleType, run_processes: RunProcesses
) -> None:
    start_runtime(device="cpu")
    configs = {**EXACT, **ROUNDED}
    plain = {}
    for kind, has_history in product(("rowwise_adagrad", "adagrad"), (False, True)):
        values = {"backend": "plain", "optimizer": {"kind": kind}, "history": has_history}
        run = worker.Run(tmp_path, values, rank=0, world_size=1)
        run.step_through(range(4), "off")
        plain[kind, has_history] = run.weights()

    run_processes("each", tmp_path, {"configs": list(configs.values())})

    for (name, config), (weights, plan) in zip(configs.items(), torch.load(tmp_path / "found.pt"), strict=True):
        kinds = {row["table"]: row["sharding"] for row in plan}
        assert kinds | config.get("sharding", {}) == kinds, name
        kind = config.get("optimizer", {"kind": "rowwise_adagrad"})["kind"]
        expected = plain[kind, config.get("history", False)]
        tolerance = {"rtol": 1e-5, "atol": 1e-6} if name in EXACT else {"rtol": 0.0, "atol": 3e-4}
        for key, weight in weights.items():
            torch.testing.assert_close(weight, expected[key], **tolerance, msg=f"{name}: {key}")


@pytest.mark.cluster
def test_two_processes_resume_bit_for_bit_with_dropout(tmp_path: Path, run_processes: RunProcesses) -> None:
    values = {"backend": "torchrec", "optimizer": {"kind": "adagrad"}, "sharding": {"tags": "column_wise"}}

    run_processes("resume", tmp_path, values)

    names = sorted(path.name for path in (tmp_path / "checkpoints" / "step-00000002").iterdir())
    assert names == ["manifest.json", "rng-0.json", "rng-1.json", "state.json", "tensors"]


@pytest.mark.cluster
def test_an_error_in_one_process_is_raised_in_all(tmp_path: Path, run_processes: RunProcesses) -> None:
    run_processes("fail", tmp_path, {"backend": "torchrec"})

    first, second = (json.loads((tmp_path / f"errors-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert "kernel fused_uvm keeps the table in the host's memory" in first[0]
    assert re.search(r"rank 1 on .* does not see .*/disk-1 of rank 0; checkpoints need a folder that all", first[1])
    assert "step-00000002 could not be saved" in first[2]
    assert "step-00000002 could not be saved" in first[3]
    assert "rng-1.json is damaged: 0 bytes instead of" in first[4]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]

"""Experts divided among real processes over gloo, against one process that has all of them."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from recmoe.training.runtime import start_runtime

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(importlib.util.find_spec("torchrec") is None, reason="torchrec is not installed"),
]

RunProcesses = Callable[..., None]
SCRIPT = Path(__file__).with_name("divided_experts_worker.py")
TOP_K = {"kind": "top_k", "k": 2}


def mmoe(num_experts: int, **more: Any) -> dict[str, Any]:
    return {"architecture": {"kind": "mmoe", "num_experts": num_experts, "expert_hidden": [8, 6], **more}}


EQUAL: dict[str, dict[str, Any]] = {
    "softmax": {"model": mmoe(4)},
    "an odd one, clipped": {"model": mmoe(3), "clip_norm": 0.05},
    "top_k": {"model": mmoe(5, gate=TOP_K)},
    "top_k, pipelined": {"model": mmoe(3, gate={"kind": "top_k", "k": 1}), "pipeline": "on"},
    "two levels, clipped by part": {
        "model": {"architecture": {"kind": "ple", "num_levels": 2, "expert_hidden": [8], "gate": TOP_K}},
        "clip_norm": {"gates": 1e-3, "experts": 2e-3, "others": 0.05},
    },
    "kinds, one of them without weights": {
        "model": {
            **mmoe(
                6,
                expert_hidden=[6],
                gate=TOP_K,
                expert=[{"kind": "mlp"}, {"kind": "identity"}, {"kind": "soft"}, {"kind": "normalized"}],
            ),
            # It reads what experts make once more.
            "balance": {"apart": {"kind": "diversity"}},
        },
        "clip_norm": 0.05,
    },
    "called one by one": {"model": {"architecture": {"kind": "stem", "expert_hidden": [8]}}},
    "around the gates": {"model": {"architecture": {"kind": "adatt", "expert_hidden": [8]}}},
    "of a network": {"model": {"architecture": {"kind": "moefied"}}},
    "with the unchosen": {"model": mmoe(3, gate=TOP_K, unchosen={})},
    "gradients kept apart": {"model": {**mmoe(3, gate=TOP_K), "balancing": {"kind": "pcgrad"}}},
}


def train_alone(worker: ModuleType, root: Path, config: dict[str, Any]) -> Any:
    """One process, plain tables, all experts; its checkpoint after two of four steps stays."""
    run = worker.Run(root, config, rank=0, world_size=1, backend="plain")
    run.train([0, 1])
    run.store.save(2, {"step": 2})
    run.train([2, 3])
    return run


def assert_equal(found: dict[str, Any], expected: dict[str, Any], name: str) -> None:
    assert found.keys() == expected.keys(), name
    for key, weight in expected.items():
        torch.testing.assert_close(found[key], weight, rtol=1e-5, atol=1e-5, msg=f"{name}: {key}")


def test_two_workers_equal_one_and_each_goes_on_from_the_others_checkpoint(
    tmp_path: Path, worker: ModuleType, run_processes: RunProcesses
) -> None:
    start_runtime(device="cpu")
    (tmp_path / "alone").mkdir()
    alone = {name: train_alone(worker, tmp_path / "alone" / name / "checkpoints", EQUAL[name]) for name in EQUAL}

    run_processes("train", tmp_path, EQUAL)
    run_processes("resume", tmp_path / "alone", EQUAL)

    by_worker = [torch.load(tmp_path / f"found-{rank}.pt") for rank in range(2)]
    resumed = torch.load(tmp_path / "alone" / "resumed-0.pt")
    for name, config in EQUAL.items():
        expected = alone[name].weights()
        held = [found[name][1] for found in by_worker]
        assert min(held) > 0, name
        assert sum(held) == alone[name].num_own_floats(), name
        for found in by_worker:
            assert_equal(found[name][0], expected, name)
        assert_equal(resumed[name], expected, f"{name}, from one to two")
        back = worker.Run(tmp_path / name / "checkpoints", config, rank=0, world_size=1, backend="plain")
        assert back.store.load(2) == {"step": 2}
        back.train([2, 3])
        assert_equal(back.weights(), expected, f"{name}, from two to one")


def test_only_rows_of_chosen_experts_travel_and_a_dense_gates_rows_once_a_worker(
    tmp_path: Path, run_processes: RunProcesses
) -> None:
    cases = {"dense": {"model": mmoe(6)}, "sparse": {"model": mmoe(6, gate={"kind": "top_k", "k": 1})}}

    run_processes("train", tmp_path, cases, world_size=3)

    by_worker = [torch.load(tmp_path / f"found-{rank}.pt") for rank in range(3)]
    # Four steps of 8 rows a worker, to two others.
    assert [found["dense"][2]["train/experts/rows_sent"] for found in by_worker] == [4 * 8 * 2] * 3
    # Two gates choose one expert each.
    assert all(0 < found["sparse"][2]["train/experts/rows_sent"] <= 4 * 8 * 2 for found in by_worker)
    assert all(found[name][2]["train/experts/travel_share"] > 0 for found in by_worker for name in cases)


def test_bf16_rows_train_about_as_fp32_ones(tmp_path: Path, worker: ModuleType, run_processes: RunProcesses) -> None:
    start_runtime(device="cpu")
    cases = {
        "dense": {"model": mmoe(3), "precision": "bf16"},
        "sparse": {"model": mmoe(3, gate=TOP_K), "precision": "bf16"},
    }

    run_processes("train", tmp_path, cases)

    for name, config in cases.items():
        expected = train_alone(worker, tmp_path / "alone" / name, config).weights()
        found = torch.load(tmp_path / "found-0.pt")[name][0]
        # Four steps of AdamW move a weight by 0.04.
        gap = max(float((found[key] - weight).abs().max()) for key, weight in expected.items())
        assert gap < 4e-3, name


def test_fewer_experts_than_workers_are_refused_in_all(tmp_path: Path, run_processes: RunProcesses) -> None:
    run_processes("fail", tmp_path, {"few": {"model": mmoe(1)}})

    first, second = (json.loads((tmp_path / f"errors-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert "ConfigError: training.experts: over_workers gives every worker an expert of each layer" in first["few"]
    assert "level 0 has 1 with weights for 2 workers; have more experts or fewer workers" in first["few"]

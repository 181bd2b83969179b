"""Checkpoints of whole runs, in one process."""

import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recmoe.embeddings.logical import dense_parameters, dense_state, logical_tables
from recmoe.embeddings.placement import PlacedModel, place
from recmoe.embeddings.tables import TablesConfig
from recmoe.errors import CheckpointError
from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout, SparseKey, TableSpec
from recmoe.training.checkpoint import CheckpointStore, latest, load, load_weights, save
from recmoe.training.checkpoint_folder import step_folder
from recmoe.training.runtime import start_runtime

FINGERPRINT = "f" * 64
WRITE_AND_HANG = """
import pathlib, sys, time
from recmoe.training.checkpoint_folder import prepare, step_folder
part = prepare(step_folder(pathlib.Path(sys.argv[1]), 2))
(part / "state.json").write_text("{}")
time.sleep(60.0)
"""
"""What a save has written right before its commit."""
LAYOUT = InputLayout(
    tables=(TableSpec("user", 50, 4, "sum", ("user",)), TableSpec("tags", 20, 8, "mean", ("tags",))),
    sparse=(SparseKey("user", "user", "user", "user", 4), SparseKey("tags", "tags", "item", "tags", 8)),
    dense=(),
)


class Model(nn.Module):
    def __init__(self, tables: nn.Module, hidden: int) -> None:
        super().__init__()
        self.tables = tables
        self.tower = nn.Sequential(nn.Linear(12, hidden), nn.ReLU(), nn.Dropout(0.5), nn.Linear(hidden, 1))

    def forward(self, batch: Batch) -> Tensor:
        return nn.functional.softplus(self.tower(self.tables(batch))).mean()


class Run:
    """A model with its optimizers and its store."""

    def __init__(self, root: Path, *, hidden: int = 8, fingerprint: str = FINGERPRINT, **tables: Any) -> None:
        config = TablesConfig.model_validate({"backend": "torchrec", **tables})
        torch.manual_seed(0)
        model = Model(config.build(layout=LAYOUT, seed=1), hidden)
        self.placed: PlacedModel = place(model, config=config, device=torch.device("cpu"))
        parameters = [parameter for _, parameter in dense_parameters(self.placed.model)]
        self.dense = torch.optim.AdamW(parameters, fused=True)
        self.parts: dict[str, Any] = {
            "model": self.placed.model,
            "dense_optimizer": self.dense,
            "table_optimizer": self.placed.table_optimizer,
            "fingerprint": fingerprint,
        }
        self.store = CheckpointStore(root, **self.parts, keep=2)

    def train(self, *steps: int) -> None:
        for step in steps:
            self.placed.table_optimizer.scale_lr(1.0 / (step + 1))
            self.dense.zero_grad()
            self.placed.model(batch_of(step)).backward()
            self.dense.step()
            self.placed.table_optimizer.step()

    def weights(self) -> dict[str, Tensor]:
        both = {**dict(logical_tables(self.placed.model)), **dense_state(self.placed.model)}
        return {name: tensor.clone() for name, tensor in both.items()}


def batch_of(step: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    lengths_KB = torch.randint(0, 4, (2, 16), generator=generator, dtype=torch.int32)
    values = torch.randint(0, 20, (int(lengths_KB.sum()),), generator=generator)
    return Batch(torch.zeros(16, 0), lengths_KB, values, torch.zeros(16, 0))


@pytest.fixture(autouse=True)
def one_process() -> None:
    start_runtime(device="cpu")


@pytest.mark.parametrize("backend", ["torchrec", "plain"])
@pytest.mark.parametrize("kind", ["rowwise_adagrad", "adagrad", "sgd"])
def test_resumed_run_equals_uninterrupted_run(tmp_path: Path, backend: str, kind: str) -> None:
    run = Run(tmp_path, backend=backend, optimizer={"kind": kind})
    run.train(0, 1)
    run.store.save(2, {"step": 2, "cursor": [[0, 7]]})
    run.train(2, 3)

    resumed = Run(tmp_path, backend=backend, optimizer={"kind": kind})
    state = resumed.store.load(2)
    resumed.train(2, 3)

    assert state == {"step": 2, "cursor": [[0, 7]]}
    assert all(torch.equal(tensor, run.weights()[name]) for name, tensor in resumed.weights().items())


def test_adam_of_the_plain_back_end_resumes_too(tmp_path: Path) -> None:
    run = Run(tmp_path, backend="plain", optimizer={"kind": "adam"})
    run.train(0, 1)
    run.store.save(2, {})
    run.train(2)

    resumed = Run(tmp_path, backend="plain", optimizer={"kind": "adam"})
    resumed.store.load(2)
    resumed.train(2)

    assert all(torch.equal(tensor, run.weights()[name]) for name, tensor in resumed.weights().items())


@pytest.mark.parametrize(
    ("saved", "loaded"),
    [
        ({}, {"backend": "plain"}),
        ({"backend": "plain"}, {}),
        ({"sharding": {"user": "data_parallel"}}, {}),
        ({}, {"sharding": {"user": "data_parallel", "tags": "column_wise"}}),
    ],
    ids=str,
)
def test_another_back_end_or_sharding_goes_on_the_same(
    tmp_path: Path, saved: dict[str, Any], loaded: dict[str, Any]
) -> None:
    run = Run(tmp_path, **saved, optimizer={"kind": "adagrad"})
    run.train(0, 1)
    run.store.save(2, {})
    run.train(2, 3)

    resumed = Run(tmp_path, **loaded, optimizer={"kind": "adagrad"})
    resumed.store.load(2)
    resumed.train(2, 3)

    for name, expected in run.weights().items():
        torch.testing.assert_close(resumed.weights()[name], expected, rtol=1e-5, atol=1e-7, msg=name)


def test_weights_alone_are_loaded_without_touching_random_state(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.train(0, 1)
    run.store.save(2, {"step": 2})
    other = Run(tmp_path, backend="plain")
    torch.manual_seed(7)

    state = load_weights(step_folder(tmp_path, 2), model=other.placed.model, fingerprint=FINGERPRINT)

    assert state == {"step": 2}
    assert torch.rand(1).item() == torch.rand(1, generator=torch.Generator().manual_seed(7)).item()
    assert all(torch.equal(tensor, run.weights()[name]) for name, tensor in other.weights().items())


def test_a_checkpoint_before_the_first_step_resumes(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.store.save(0, {})
    run.train(0)

    resumed = Run(tmp_path)
    resumed.store.load(0)
    resumed.train(0)

    assert all(torch.equal(tensor, run.weights()[name]) for name, tensor in resumed.weights().items())


def test_newest_and_best_checkpoints_are_kept(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for step in (1, 2, 3, 4):
        run.store.save(step, {}, is_best=step == 1)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000003", "step-00000004"]
    assert run.store.latest() == 4


def test_another_fingerprint_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.store.save(1, {})

    with pytest.raises(
        CheckpointError, match=r"belongs to another schema or config .fingerprint ffffffffffff there, 0000"
    ):
        Run(tmp_path, fingerprint="0" * 64).store.load(1)


def test_another_model_is_refused_by_the_name_that_differs(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.store.save(1, {})

    with pytest.raises(CheckpointError, match=r"dense/tower.0.bias has shape \(8,\) there and \(16,\) here"):
        Run(tmp_path, hidden=16).store.load(1)


def test_another_table_optimizer_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.store.save(1, {})

    with pytest.raises(CheckpointError, match=r"saved with tables.optimizer.kind: rowwise_adagrad, not adagrad"):
        Run(tmp_path, optimizer={"kind": "adagrad"}).store.load(1)


def test_a_damaged_checkpoint_is_refused_and_the_one_before_is_the_latest(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.store.save(1, {})
    run.store.save(2, {})
    damaged = step_folder(tmp_path, 2) / "tensors" / "0-0.safetensors"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)

    with pytest.raises(CheckpointError, match=r"0-0\.safetensors is damaged: its hash differs"):
        run.store.load(2)

    assert latest(tmp_path) == step_folder(tmp_path, 1)


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.store.save(1, {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(
            CheckpointError, match=r"step-00000002 could not be saved in .* GB free\): .*older checkpoints"
        ):
            run.store.save(2, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert run.store.latest() == 1
    run.store.load(1)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where a folder should be")
    run = Run(tmp_path)

    with pytest.raises(CheckpointError, match=r"step-00000001 could not be saved in .*runs.*GB free\): "):
        save(step_folder(tmp_path / "runs", 1), **run.parts, state={})


def test_a_killed_save_leaves_the_previous_checkpoint_the_latest(tmp_path: Path) -> None:
    run = Run(tmp_path, backend="plain")
    run.store.save(1, {})

    saver = subprocess.Popen([sys.executable, "-c", WRITE_AND_HANG, str(tmp_path)])
    while not list(tmp_path.glob(".step-00000002.*.part/state.json")):
        time.sleep(0.01)
    saver.kill()
    saver.wait()

    assert run.store.latest() == 1
    load(step_folder(tmp_path, 1), **run.parts)
    run.store.save(2, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]

"""Saving beside the training."""

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from recmoe.errors import CheckpointError
from recmoe.training import checkpoint
from recmoe.training.checkpoint_folder import committed, step_of
from recmoe.training.pieces import Piece
from recmoe.training.staging import Staging, free_bytes

MakeRun = Callable[..., Any]


class Gate:
    """Holds up the writing of checkpoints until it is opened."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.error: Exception | None = None
        self.real = checkpoint.write

    def write(self, *arguments: Any) -> None:
        assert self.is_open.wait(30)
        if self.error is not None:
            raise self.error
        self.real(*arguments)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate()
    monkeypatch.setattr(checkpoint, "write", gate.write)
    yield gate
    gate.is_open.set()


def steps(root: Path) -> list[int]:
    return [step_of(folder) for folder in committed(root)]


def test_training_goes_on_while_a_checkpoint_is_written(make_run: MakeRun, gate: Gate, tmp_path: Path) -> None:
    run = make_run(tmp_path, is_async=True)
    run.train(0, 1)
    saved = run.weights()

    run.store.save(2, {"step": 2})
    run.train(2, 3)
    before = steps(tmp_path)
    gate.is_open.set()
    run.store.finish()

    resumed = make_run(tmp_path)
    assert before == []
    assert resumed.store.load(2) == {"step": 2}
    assert all(torch.equal(tensor, saved[name]) for name, tensor in resumed.weights().items())
    resumed.train(2, 3)
    assert all(torch.equal(tensor, run.weights()[name]) for name, tensor in resumed.weights().items())


def test_the_next_save_waits_for_the_one_under_way(make_run: MakeRun, gate: Gate, tmp_path: Path) -> None:
    run = make_run(tmp_path, is_async=True, keep=2)
    run.store.save(1, {})
    opener = threading.Timer(0.1, gate.is_open.set)

    opener.start()
    run.store.save(2, {})
    found = steps(tmp_path)
    run.store.save(3, {})
    run.store.finish()

    assert 1 in found
    assert steps(tmp_path) == [3, 2]


def test_an_error_beside_the_training_is_raised_by_the_next_save(make_run: MakeRun, gate: Gate, tmp_path: Path) -> None:
    run = make_run(tmp_path, is_async=True)
    gate.error = CheckpointError("the disk went away")
    gate.is_open.set()
    run.store.save(1, {})

    with pytest.raises(CheckpointError, match="the disk went away"):
        run.store.save(2, {})

    gate.error = None
    run.store.save(2, {})
    assert run.store.latest() == 2


def test_nothing_is_under_way_at_the_end(make_run: MakeRun, gate: Gate, tmp_path: Path) -> None:
    run = make_run(tmp_path, is_async=True)
    threading.Timer(0.1, gate.is_open.set).start()

    with run.store.finishing():
        run.store.save(1, {})

    assert steps(tmp_path) == [1]


def test_an_error_of_the_training_comes_before_one_of_a_save(make_run: MakeRun, gate: Gate, tmp_path: Path) -> None:
    run = make_run(tmp_path, is_async=True)
    gate.error = CheckpointError("the disk went away")
    gate.is_open.set()

    def fail() -> None:
        with run.store.finishing():
            run.store.save(1, {})
            raise RuntimeError("the lights went out")

    with pytest.raises(RuntimeError, match="the lights went out"):
        fail()

    run.store.finish()


def test_without_room_for_a_copy_the_training_waits(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checkpoint, "free_bytes", lambda: 1000)
    run = make_run(tmp_path, is_async=True)

    with caplog.at_level(logging.WARNING):
        run.store.save(1, {})
        run.store.save(2, {})

    assert steps(tmp_path) == [2, 1]
    assert caplog.text.count("checkpoints are saved while the training waits") == 1


def test_copies_are_made_in_the_same_memory_again() -> None:
    live = torch.ones(8, 4)
    staging = Staging()

    first, _ = staging.copy([Piece("a", (8, 8), (0, 4), live)])
    missing = staging.missing_bytes([Piece("a", (8, 8), (0, 4), live), Piece("b", (2,), (0,), torch.ones(2))])
    live.fill_(2.0)
    second, wait = staging.copy([Piece("a", (8, 8), (0, 4), live)])
    wait()

    assert missing == 8
    assert first[0].values.data_ptr() == second[0].values.data_ptr()
    assert (second[0].name, second[0].whole, second[0].start) == ("a", (8, 8), (0, 4))
    assert second[0].values.eq(2.0).all()


def test_a_tensor_of_another_size_gets_other_memory() -> None:
    staging = Staging()
    staging.copy([Piece("a", (8,), (0,), torch.ones(8))])

    (copy,), _ = staging.copy([Piece("a", (9,), (0,), torch.ones(9))])

    assert copy.values.tolist() == [1.0] * 9


def test_a_copy_of_a_column_shard_is_contiguous() -> None:
    (copy,), _ = Staging().copy([Piece("a", (4, 8), (0, 4), torch.ones(4, 8)[:, 4:])])

    assert copy.values.is_contiguous()


def test_free_memory_is_shared_by_the_ranks_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recmoe.training.staging.psutil.virtual_memory", lambda: type("M", (), {"available": 1000})())
    monkeypatch.setattr("recmoe.training.staging.cgroup_limits", lambda: type("L", (), {"memory_bytes": None})())
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")

    assert free_bytes() == 200


def test_a_container_s_limit_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recmoe.training.staging.cgroup_limits", lambda: type("L", (), {"memory_bytes": 0})())
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)

    assert free_bytes() < 0

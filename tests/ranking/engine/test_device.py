"""Devices that are named: those that are there, and what is said of those that are not."""

import copy

import pytest
import torch

from recmoe.errors import ServingError
from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker
from recmoe.ranking.engine import ranking_device
from recmoe.ranking.engine.device import check_float32
from recmoe.ranking.engine.place import explaining, on_device
from recmoe.ranking.precision import at_precision


def test_the_processor_is_always_there() -> None:
    assert ranking_device("cpu") == torch.device("cpu")


def test_a_name_that_is_no_device_is_refused() -> None:
    with pytest.raises(ServingError, match=r"device: tpu is none; give cpu, cuda or cuda:N"):
        ranking_device("tpu")


def test_a_build_without_cuda_says_what_to_install(monkeypatch: pytest.MonkeyPatch, bundle: ModelBundle) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)

    with pytest.raises(ServingError, match=r"device cuda:1: torch .* is built without CUDA; install .*cuda\.lock.*cpu"):
        Ranker.load(bundle, device="cuda:1")


def test_a_machine_without_a_gpu_says_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(ServingError, match=r"device cuda: torch .* finds no GPU that it can use; see what nvidia-smi"):
        ranking_device("cuda")


def test_a_gpu_beyond_the_last_is_told_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    assert [ranking_device(name).index for name in ("cuda", "cuda:1")] == [0, 1]
    with pytest.raises(ServingError, match=r"device cuda:2: there is no such GPU; there are: cuda:0, cuda:1"):
        ranking_device("cuda:2")


def test_float32_in_tf32_is_refused_on_a_gpu() -> None:
    torch.set_float32_matmul_precision("high")
    try:
        check_float32(torch.device("cpu"))
        with pytest.raises(ServingError, match=r"device cuda:0: float32 is multiplied in TF32 .*\"high\".*bf16"):
            check_float32(torch.device("cuda", 0))
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_gpu_without_bf16_is_refused(monkeypatch: pytest.MonkeyPatch, bundle: ModelBundle) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)

    with pytest.raises(ServingError, match="this GPU has no bf16 arithmetic; use precision fp32"):
        at_precision(bundle.model, "bf16", torch.device("cuda", 0))


def test_a_model_that_is_moved_leaves_the_other_where_it_was(bundle: ModelBundle) -> None:
    before = copy.deepcopy(bundle.model.state_dict())

    moved = on_device(bundle.model, torch.device("meta"))
    shared = on_device(bundle.model, torch.device("cpu"))

    assert {one.device.type for one in (*moved.parameters(), *moved.buffers())} == {"meta"}
    assert all(torch.equal(one, before[name]) for name, one in bundle.model.state_dict().items())
    for one, other in zip(bundle.model.parameters(), shared.parameters(), strict=True):
        assert one.data_ptr() == other.data_ptr()


def test_predictions_of_a_gpu_are_explained_on_the_cpu(bundle: ModelBundle) -> None:
    ranker = Ranker(bundle)
    on_cpu = explaining(ranker.engine, bundle.model, "fp32")
    ranker.engine.device = torch.device("cuda", 0)

    on_gpu = explaining(ranker.engine, bundle.model, "bf16")

    assert on_cpu == (ranker.engine.model, "fp32")
    assert on_gpu == (bundle.model, "fp32")

"""What models do on a device that is not the processor, seen on torch's device without memory.

There nothing can be read by the host, and every tensor that was left on the processor shows.
"""

import contextlib
from typing import Any

import pytest
import torch

from recmoe.moe.experts.mlp import MlpExperts
from recmoe.ranking.engine.captured import CapturedEngine
from recmoe.ranking.engine.eager import on_device as batch_on_device
from recmoe.ranking.engine.hazards import first_hazard
from recmoe.ranking.engine.place import on_device
from recmoe.ranking.engine.recording import PlainCalls
from tests.ranking.engine.conftest import MakeModel
from tests.ranking.engine.kinds import MODELS, NOT_RECORDED

META = torch.device("meta")


@pytest.fixture
def _no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch knows none for that device."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)


@pytest.mark.usefixtures("_no_autocast")
@pytest.mark.parametrize("name", MODELS)
def test_the_host_waits_for_nothing_and_copies_nothing(name: str, make_model: MakeModel) -> None:
    shop = make_model(**MODELS[name])
    model = on_device(shop.model, META)
    for module in model.modules():
        if isinstance(module, MlpExperts):
            # As on a GPU.
            module.form = "batched"
    CapturedEngine(model, device=META, precision="fp32", recorder=PlainCalls())
    given = shop.candidates()
    shared, own = (batch_on_device(side, META) for side in (given.shared, given.own))
    request_C = given.request_C.to(META)

    def compute() -> Any:
        with torch.inference_mode():
            return model.predict_sided(shared, own, request_C)

    if name in NOT_RECORDED:
        with pytest.raises(NotImplementedError, match=r"bincount|nonzero"):
            first_hazard(compute)
    else:
        assert first_hazard(compute) is None


@pytest.mark.parametrize(
    ("operation", "found"),
    [
        (lambda x: x.nonzero(), "nonzero.default is waited for"),
        (lambda x: x.sum().item(), "item.default is waited for"),
        (lambda x: x[x > 1], "index.Tensor selects rows that the host has to count"),
        (lambda x: torch.unique(x), "_unique2.default is waited for"),
        (
            lambda x: x.repeat_interleave(x.long()),
            "repeat_interleave.self_Tensor makes rows that the host has to count",
        ),
        (lambda x: x + torch.tensor([1.0, 2.0, 3.0]), "numbers of Python are copied"),
        (lambda x: x.to(META), "to.dtype_layout copies between cpu and meta"),
        (lambda x: x.repeat_interleave(x.long(), output_size=6), None),
        (lambda x: torch.where(x > 1, x, 0.5), None),
        (lambda x: x[torch.arange(2)], None),
    ],
)
def test_operations_that_a_graph_cannot_hold_are_named(operation: Any, found: str | None) -> None:
    x = torch.tensor([1.0, 2.0, 3.0])

    with torch.inference_mode():
        assert first_hazard(lambda: operation(x)) == found


def test_grouped_products_count_on_the_host_but_in_bf16() -> None:
    def product(dtype: torch.dtype) -> Any:
        x_PD, weight_EDO = torch.ones(4, 8, dtype=dtype), torch.ones(2, 8, 8, dtype=dtype)
        ends_E = torch.arange(2, 5, 2, dtype=torch.int32)
        return torch.nn.functional.grouped_mm(x_PD, weight_EDO, offs=ends_E)

    with torch.inference_mode():
        found = {dtype: first_hazard(lambda dtype=dtype: product(dtype)) for dtype in (torch.float32, torch.bfloat16)}  # type: ignore[misc]

    assert found == {
        torch.float32: "_grouped_mm.default counts its rows on the host in torch.float32",
        torch.bfloat16: None,
    }

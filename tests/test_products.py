"""Precision: bf16 where the hardware has it, and float32 products that stay float32."""

import pytest
import torch

from recmoe import products as module
from recmoe.errors import TrainingError
from recmoe.products import autocast, fast_products, has_fast_bf16, resolve_precision

CPU = torch.device("cpu")


def test_auto_precision_is_what_the_device_multiplies_in_hardware() -> None:
    assert resolve_precision("auto", CPU) == ("bf16" if has_fast_bf16(CPU) else "fp32")
    assert resolve_precision("fp32", CPU) == "fp32"


def test_bf16_without_hardware_is_an_error() -> None:
    if has_fast_bf16(CPU):
        assert resolve_precision("bf16", CPU) == "bf16"
        return
    with pytest.raises(TrainingError, match=r"training\.precision: bf16 was asked for and this cpu has no bf16"):
        resolve_precision("bf16", CPU)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_runs_products_in_the_precision(precision: str, dtype: torch.dtype) -> None:
    weight = torch.ones(2, 2)

    with autocast(precision, CPU):  # type: ignore[arg-type]
        product = weight @ weight

    assert product.dtype == dtype
    assert weight.dtype == torch.float32


def test_fast_products_of_float32_are_exact_to_float32() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(100, 300, generator=generator), torch.randn(300, 50, generator=generator)
    exact = a.double() @ b.double()

    with fast_products(CPU):
        product = a @ b

    assert ((product - exact).abs().max() / exact.abs().max()).item() < module.MAX_ERROR


def test_fast_products_leave_the_setting_as_it_was() -> None:
    before = torch.get_float32_matmul_precision()

    with pytest.raises(ZeroDivisionError), fast_products(CPU):
        1 / 0  # noqa: B018

    assert torch.get_float32_matmul_precision() == before


def test_library_that_rounds_to_bfloat16_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ERROR", 0.0)
    module._is_onednn_exact.cache_clear()

    with fast_products(CPU):
        setting = torch.get_float32_matmul_precision()

    module._is_onednn_exact.cache_clear()
    assert setting == "highest"

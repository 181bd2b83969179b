"""products: in which type, and by which library, matrices are multiplied."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Literal

import torch

from recmoe.errors import TrainingError

Precision = Literal["auto", "fp32", "bf16"]
MAX_ERROR = 1e-5
"""Largest relative error of a product of float32 matrices; one with bfloat16 inside is off by a thousand times that."""


def resolve_precision(precision: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """What ``auto`` means here: bf16 where the device multiplies it in hardware."""
    has_bf16 = has_fast_bf16(device)
    if precision == "bf16" and not has_bf16:
        raise TrainingError(
            f"training.precision: bf16 was asked for and this {device.type} has no bf16 arithmetic; "
            "use precision: auto or fp32"
        )
    if precision == "auto":
        return "bf16" if has_bf16 else "fp32"
    return precision


def has_fast_bf16(device: torch.device) -> bool:
    """Whether matrices of bf16 are multiplied in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextmanager
def autocast(precision: Literal["fp32", "bf16"], device: torch.device) -> Iterator[None]:
    """Matrix products in bf16 where asked; parameters stay float32."""
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        yield


@contextmanager
def fast_products(device: torch.device) -> Iterator[None]:
    """Float32 products of all threads by the faster library, exact to float32 too.

    Offline scores are computed outside, by the library that everybody has.
    """
    before = torch.get_float32_matmul_precision()
    if device.type == "cpu" and _is_onednn_exact():
        torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def _is_onednn_exact() -> bool:
    """Whether "medium" does no more than hand float32 products to oneDNN, up to twice as fast as MKL on AMD.

    It allows bfloat16 inside, which oneDNN makes use of where the processor has matrix tiles.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(64, 512, generator=generator), torch.randn(512, 64, generator=generator)
    exact = a.double() @ b.double()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        product = (a @ b).double()
    finally:
        torch.set_float32_matmul_precision(before)
    return bool((product - exact).abs().max() < MAX_ERROR * exact.abs().max())

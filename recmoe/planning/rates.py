"""Rates: what a device can do at most, written down by hand or measured in a few seconds."""

# B rows, D input width, O output width, V rows of a table, N ids of a batch

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor
from torch.nn import functional

from recmoe.config import Config, load_config
from recmoe.machine import Machine

MATRIX_SHAPES = ((4096, 432, 256), (4096, 256, 128), (4096, 432, 2048), (2048, 2048, 2048))
"""(rows, inputs, outputs) of the matrix products that are tried: an expert's layers, all experts at once, a square."""

COPIED_BYTES = 256 << 20
"""Large enough to leave every cache."""

NUM_TABLE_ROWS, ROW_WIDTH, NUM_IDS, ZIPF = 1 << 22, 16, 26 * 4096, 1.1
"""The table of the random rows: 64 bytes each, 256 MB, as many ids as 26 features of 4096 rows look up."""


class Rates(Config):
    """Upper limits of one device, or of all usable cores of a machine without one."""

    device: str
    """Its name, such as "cpu AMD EPYC, 2 threads"."""
    source: str = "measured"
    """Where the figures come from."""
    fp32_flops_per_s: PositiveFloat
    """Matrix products in float32 as torch ships it; a multiplication and an addition count as two."""
    fp32_fast_flops_per_s: PositiveFloat
    """The same with ``torch.set_float32_matmul_precision("medium")``: oneDNN on a CPU, TF32 on a GPU."""
    bf16_flops_per_s: PositiveFloat
    """Matrix products in bfloat16."""
    copy_bytes_per_s: PositiveFloat
    """Copy of a large piece of memory; bytes read and bytes written both count."""
    random_row_bytes_per_s: PositiveFloat
    """Rows of 64 bytes gathered by Zipf ids from a table beyond every cache; only the bytes of the rows count."""

    def step_flops_per_s(self, precision: Literal["fp32", "bf16"]) -> float:
        """Of the matrix products of a training step; those in float32 go to the faster library."""
        return self.bf16_flops_per_s if precision == "bf16" else self.fp32_fast_flops_per_s

    def save(self, path: Path) -> None:
        """Write JSON, which ``load`` reads, as it does YAML written by hand."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Rates":
        """Read what ``save`` or a person wrote.

        Raises:
            ConfigError: everything that is wrong with it.
        """
        return load_config(cls, path)


def measure_rates(device: torch.device | str = "cpu", *, min_s: float = 0.2) -> Rates:
    """Measure this machine, with the threads that torch has now; the machine should have nothing else to do.

    Args:
        min_s: how long each figure is repeated; the median counts.
    """
    device = torch.device(device)
    with _float32_matmul("highest"):
        fp32 = _matrix_rate(device, torch.float32, min_s)
    with _float32_matmul("medium"):
        fp32_fast = _matrix_rate(device, torch.float32, min_s)
    return Rates(
        device=device_name(device),
        fp32_flops_per_s=fp32,
        fp32_fast_flops_per_s=fp32_fast,
        bf16_flops_per_s=_matrix_rate(device, torch.bfloat16, min_s),
        copy_bytes_per_s=_copy_rate(device, min_s),
        random_row_bytes_per_s=_random_row_rate(device, min_s),
    )


def device_name(device: torch.device) -> str:
    """What a device is called in a file of rates."""
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"cpu {Machine.read(Path.cwd()).processor}, {torch.get_num_threads()} threads"


def median_s(action: Callable[[], object], device: torch.device, *, min_s: float) -> float:
    """Seconds of one call, the median of as many as fit ``min_s`` (five at least), the first left out."""
    _timed(action, device)
    times: list[float] = []
    while len(times) < 5 or sum(times) < min_s:
        times.append(_timed(action, device))
    return statistics.median(times)


def zipf_ids(num_rows: int, num_ids: int, *, exponent: float, generator: torch.Generator) -> Tensor:
    """ids_N with P(the k-th most frequent row) ~ 1 / k^exponent, frequent rows scattered over the table."""
    weights_V = torch.arange(1, num_rows + 1, dtype=torch.float64).pow_(-exponent)
    ends_V = weights_V.cumsum_(0)
    draws_N = torch.rand(num_ids, dtype=torch.float64, generator=generator) * ends_V[-1]
    return torch.randperm(num_rows, generator=generator)[torch.searchsorted(ends_V, draws_N)]


def _timed(action: Callable[[], object], device: torch.device) -> float:
    started_s = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started_s


def _matrix_rate(device: torch.device, dtype: torch.dtype, min_s: float) -> float:
    """The best FLOP/s over the shapes."""
    best = 0.0
    for num_rows, in_features, out_features in MATRIX_SHAPES:
        x_BD = torch.randn(num_rows, in_features, device=device).to(dtype)
        weight_OD = torch.randn(out_features, in_features, device=device).to(dtype)
        seconds = median_s(lambda x=x_BD, w=weight_OD: functional.linear(x, w), device, min_s=min_s)  # type: ignore[misc]
        best = max(best, 2 * num_rows * in_features * out_features / seconds)
    return best


def _copy_rate(device: torch.device, min_s: float) -> float:
    source = torch.ones(COPIED_BYTES // 4, device=device)
    target = torch.zeros_like(source)
    return 2 * COPIED_BYTES / median_s(lambda: target.copy_(source), device, min_s=min_s)


def _random_row_rate(device: torch.device, min_s: float) -> float:
    table_VD = torch.zeros(NUM_TABLE_ROWS, ROW_WIDTH, device=device)
    generator = torch.Generator().manual_seed(0)
    # Other ids in every call, or the rows would stay in the cache.
    batches = [
        ids_N.to(device)
        for ids_N in torch.split(zipf_ids(NUM_TABLE_ROWS, 8 * NUM_IDS, exponent=ZIPF, generator=generator), NUM_IDS)
    ]
    rows_ND = torch.empty(NUM_IDS, ROW_WIDTH, device=device)
    turn = iter(_cycle(batches))
    seconds = median_s(lambda: torch.index_select(table_VD, 0, next(turn), out=rows_ND), device, min_s=min_s)
    return NUM_IDS * ROW_WIDTH * 4 / seconds


def _cycle(batches: list[Tensor]) -> Iterator[Tensor]:
    while True:
        yield from batches


@contextmanager
def _float32_matmul(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)

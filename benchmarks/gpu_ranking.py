"""Forward passes of requests on a GPU: call by call and in recorded passes, one request and many that wait.

    .venv/bin/python -m benchmarks.gpu_ranking --device cuda

From encoded rows to predictions on the host, copies included; decoding, encoding and sorting are not part of it (see
benchmarks/ranking.py). Rows are those of the bundle's replay, again and again. On the CPU (``--device cpu``) a recorded
pass is a plain call of a fixed size: it shows what padding costs, and that this runs.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.ranking import HERE, bundle_in
from recmoe.export.bundle import ModelBundle
from recmoe.export.replay import relative_difference
from recmoe.features.batch import Batch
from recmoe.features.layout import OWN_SIDES, SHARED_SIDES
from recmoe.products import has_fast_bf16
from recmoe.ranking.engine import Engine, build_engine, ranking_device
from recmoe.ranking.engine.captured import CapturedEngine
from recmoe.ranking.precision import Precision

Candidates = tuple[Batch, Batch, Tensor]
SIZES = ((1, 200), (1, 2000), (16, 200))
"""Requests, and candidates of each."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a line per engine and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="by default one of the benchmark's MMoE, which is trained first")
    parser.add_argument("--device", default="cuda", help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=8, help="that ask at once (%(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of every measurement (%(default)s)")
    given = parser.parse_args(arguments)
    place = ranking_device(given.device)
    bundle = ModelBundle.load(given.bundle or bundle_in(HERE / ".cache" / "ranking"))
    where = torch.cuda.get_device_name(place) if place.type == "cuda" else "the CPU"
    print(f"{bundle.name} on {where}, torch {torch.__version__}")
    requests = [candidates(bundle, *size) for size in SIZES]
    exact = build_engine(bundle.model)
    expected = [exact.predict(*one) for one in requests]
    precisions: tuple[Precision, ...] = ("fp32", "bf16") if has_fast_bf16(place) else ("fp32",)
    for precision in precisions:
        build = partial(build_engine, bundle.model, device=given.device, precision=precision)
        for records in (False, True):
            engine = build(records=records, batch_candidates=0)
            name = f"{precision}, {'recorded' if records else 'call by call'}"
            for size, one, expected_CT in zip(SIZES, requests, expected, strict=True):
                print(f"{name:22} {size[0]:2} × {size[1]:<5,} {of_passes(engine, one, expected_CT, given.seconds)}")
            if isinstance(engine, CapturedEngine) and engine.hazard is not None:
                print(f"{name:22} nothing is recorded: {engine.hazard}")
        for batch_candidates in (0, 8192):
            engine = build(records=True, batch_candidates=batch_candidates)
            engine.warm_up(requests[0][0], requests[0][1])
            rate = throughput(engine, requests[0], threads=given.threads, seconds=given.seconds)
            how = "those that wait together" if batch_candidates else "each by itself"
            print(f"{precision}, {given.threads} threads, 1 × 200, {how}: {rate:,.0f} requests/s")


def of_passes(engine: Engine, one: Candidates, expected_CT: NDArray[np.float32], seconds: float) -> str:
    """How long passes take, what the device is told for one, and how far its predictions are from the CPU's."""
    predict = partial(engine.predict, *one)
    first_s = timed(predict)
    times = repeated(predict, seconds=seconds)
    difference = relative_difference(predict(), expected_CT).max()
    return (
        f"median {percentile(times, 0.5):7.3f} ms, p99 {percentile(times, 0.99):7.3f}, first {first_s * 1e3:.0f} ms, "
        f"{launches(engine, one)}, differs by {difference:.1e}"
    )


def candidates(bundle: ModelBundle, num_requests: int, per_request: int) -> Candidates:
    """Rows of the replay as requests."""
    rows, encoder = bundle.replay.rows, bundle.encoder

    def taken(num: int) -> pa.Table:
        return rows.take(pa.array((torch.arange(num) % rows.num_rows).numpy()))

    shared = encoder.encode(taken(num_requests), sides=SHARED_SIDES, with_labels=False)
    own = encoder.encode(taken(num_requests * per_request), sides=OWN_SIDES, with_labels=False)
    return shared, own, torch.arange(num_requests).repeat_interleave(per_request)


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s


def repeated(work: Callable[[], object], *, seconds: float) -> list[float]:
    """Milliseconds of each run, in order of length."""
    times: list[float] = []
    end_s = time.perf_counter() + seconds
    while not times or time.perf_counter() < end_s:
        times.append(timed(work) * 1e3)
    return sorted(times)


def percentile(times: Sequence[float], share: float) -> float:
    """Of numbers in order."""
    return times[min(len(times) - 1, int(share * len(times)))]


def launches(engine: Engine, one: Candidates) -> str:
    """What the host tells the device to do for one pass; on the CPU, the operations."""
    is_gpu = engine.device.type == "cuda"
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if is_gpu else [ProfilerActivity.CPU]
    with profile(activities=activities) as profiler:
        engine.predict(*one)
    names = [event.key for event in profiler.events()]
    if not is_gpu:
        return f"{sum(name.startswith('aten::') for name in names)} operations"
    parts = {"cudaLaunchKernel": "kernels", "cudaGraphLaunch": "graphs", "cudaMemcpyAsync": "copies"}
    return ", ".join(f"{sum(name.startswith(call) for name in names)} {what}" for call, what in parts.items())


def throughput(engine: Engine, one: Candidates, *, threads: int, seconds: float) -> float:
    """Requests per second of threads that each ask again as soon as they are answered."""
    end_s = time.perf_counter() + seconds

    def ask(_: int) -> int:
        num = 0
        while time.perf_counter() < end_s:
            engine.predict(*one)
            num += 1
        return num

    with ThreadPoolExecutor(threads) as pool:
        total = sum(pool.map(ask, range(threads)))
    return total / seconds


if __name__ == "__main__":
    main()

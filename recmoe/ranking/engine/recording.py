"""Recorder: makes of a computation one that is repeated in one go; CudaGraphs on a GPU, PlainCalls on the CPU."""

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

_NUM_TRIALS = 3
"""Runs before a capture: libraries choose their kernels and take their memory in the first ones."""
_capturing = threading.Lock()
"""Held while a graph is captured: a process can do one at a time."""
_taking = threading.Lock()
_free_streams: dict[torch.device, list[torch.cuda.Stream]] = {}
"""By device, those of recorders that are gone."""


@dataclass(frozen=True)
class Staging:
    """Some bytes that the host writes, and where the computation reads them; the same on the CPU."""

    host: Tensor
    device: Tensor

    def upload(self) -> None:
        """Let the computation read what the host has written; waits until it can."""
        if self.device is not self.host:
            self.device.copy_(self.host)


class Recorder(Protocol):
    """Records computations that read a staging area."""

    def staging(self, num_bytes: int) -> Staging:
        """A new area, all zeros."""
        ...

    def record(self, compute: Callable[[], Tensor], staging: Staging) -> Callable[[], Tensor]:
        """What computes again, from what the host has written by then, and gives the result on the host.

        Rows that the model can read have been uploaded before. The result is overwritten by the next run; there is
        one run at a time.

        Raises:
            RuntimeError: what is computed cannot be recorded.
        """
        ...


class PlainCalls:
    """Records nothing: a run is a call. What surrounds a graph can be tested so on the CPU."""

    def staging(self, num_bytes: int) -> Staging:
        """A new area."""
        content = torch.zeros(num_bytes, dtype=torch.uint8)
        return Staging(content, content)

    def record(self, compute: Callable[[], Tensor], staging: Staging) -> Callable[[], Tensor]:  # noqa: ARG002
        """The computation itself."""
        return compute


class CudaGraphs:
    """Records CUDA graphs, which share a stream of their own and the memory in between.

    Args:
        device: of the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # Libraries keep memory for every stream that they have met: one that is free is used again.
        free = _free_streams.setdefault(device, [])
        with _taking:
            self._stream = free.pop() if free else torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        weakref.finalize(self, free.append, self._stream)
        # Graphs run one after the other, and read nothing that another one has left there.
        self._pool = torch.cuda.graph_pool_handle()

    def staging(self, num_bytes: int) -> Staging:
        """A new area, in page-locked memory on the host."""
        host = torch.zeros(num_bytes, dtype=torch.uint8, pin_memory=True)
        return Staging(host, torch.zeros(num_bytes, dtype=torch.uint8, device=self._device))

    def record(self, compute: Callable[[], Tensor], staging: Staging) -> Callable[[], Tensor]:
        """A graph, and the copies before and after it."""
        with _capturing, torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            for _ in range(_NUM_TRIALS):
                compute()
            self._stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            # Other threads may rank meanwhile: what they do is not part of the graph.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                result = compute()
            host_result = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
        stream = self._stream

        def run() -> Tensor:
            with torch.inference_mode(), torch.cuda.stream(stream):
                staging.device.copy_(staging.host, non_blocking=True)
                graph.replay()
                host_result.copy_(result, non_blocking=True)
                stream.synchronize()
            return host_result

        return run

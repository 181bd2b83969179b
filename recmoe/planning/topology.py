"""Topology: the machines of a job, which need not exist: nodes, devices, memory, links and what a device can do."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from recmoe.config import Config, load_config
from recmoe.embeddings.hardware import RESERVED_SHARE
from recmoe.planning.rates import Rates

GB = 1e9
Share = Annotated[float, Field(gt=0.0, le=1.0)]

PRESETS = {
    "h100": Rates(
        device="NVIDIA H100 SXM",
        source="NVIDIA H100 data sheet, without sparsity, https://www.nvidia.com/en-us/data-center/h100/",
        fp32_flops_per_s=67e12,
        fp32_fast_flops_per_s=494e12,
        bf16_flops_per_s=989e12,
        copy_bytes_per_s=3.35e12,
        random_row_bytes_per_s=3.35e12,
    ),
    "a100": Rates(
        device="NVIDIA A100 SXM 80 GB",
        source="NVIDIA A100 data sheet, without sparsity, https://www.nvidia.com/en-us/data-center/a100/",
        fp32_flops_per_s=19.5e12,
        fp32_fast_flops_per_s=156e12,
        bf16_flops_per_s=312e12,
        copy_bytes_per_s=2.039e12,
        random_row_bytes_per_s=2.039e12,
    ),
}
"""Published peaks; for random rows the peak of the memory, of which ``Efficiency.memory`` is reached."""


class Efficiency(Config):
    """What a step reaches of the rates where nothing was measured: assumptions, to be replaced by measured costs."""

    matrix: Share = 0.35
    """Share of the matrix rate that experts and towers of a few hundred units reach, forward and backward."""
    memory: Share = 0.5
    """Share of the memory's bandwidth that activations, random rows and the optimizer reach."""
    network: Share = 0.7
    """Share of a link's bandwidth that a collective reaches."""
    product_s: Annotated[float, Field(ge=0.0)] = 50e-6
    """Seconds per matrix product of a step that launching kernels costs, its backward and its neighbours included."""
    table_s: Annotated[float, Field(ge=0.0)] = 2e-6
    """Seconds per table and step beside its ids; one kernel looks up all tables of a rank."""
    step_s: Annotated[float, Field(ge=0.0)] = 2e-3
    """Seconds per step whatever the model: loss, clipping, optimizers, collectives' latency, Python."""


class Topology(Config):
    """The machines of a job, all alike.

    Example: 16 nodes of 8 GPUs with 80 GB, NVLink inside a node, 400 Gbit/s per GPU between nodes::

        nodes: 16
        devices_per_node: 8
        device: cuda
        memory_gb: 80
        host_memory_gb: 2000
        intra_node_gb_per_s: 450
        inter_node_gb_per_s: 50
        rates: h100
    """

    nodes: PositiveInt = 1
    """Machines."""
    devices_per_node: PositiveInt = 1
    """GPUs, or workers where the device is a CPU, of a node; a worker each."""
    device: Literal["cpu", "cuda"] = "cpu"
    """What a worker computes on."""
    memory_gb: PositiveFloat
    """10^9 bytes of a device, or of a worker on a CPU."""
    host_memory_gb: PositiveFloat | None = None
    """10^9 bytes of a node's own memory; with CPUs it is that of the workers."""
    reserved_share: Annotated[float, Field(ge=0.0, lt=1.0)] = RESERVED_SHARE
    """Share of a device's memory that tables leave to the dense part and to batches."""
    intra_node_gb_per_s: PositiveFloat = 10.0
    """10^9 bytes per second that a device sends to devices of its node, in one direction."""
    inter_node_gb_per_s: PositiveFloat = 1.0
    """10^9 bytes per second that a device sends to other nodes, in one direction: a node's network over its devices."""
    rates: Rates | Literal["h100", "a100"] | None = None
    """What a device can do: figures, or the published ones of a device; by default those measured on this machine."""
    efficiency: Efficiency = Efficiency()
    """What of it a step reaches, where that was not measured."""

    @property
    def world_size(self) -> int:
        """Workers of the job."""
        return self.nodes * self.devices_per_node

    @property
    def known_rates(self) -> Rates | None:
        """The rates with a preset's name replaced by its figures."""
        return PRESETS[self.rates] if isinstance(self.rates, str) else self.rates

    @property
    def table_bytes(self) -> float:
        """Bytes of a device that tables may take."""
        return self.memory_gb * GB * (1 - self.reserved_share)


def load_topology(path: Path) -> Topology:
    """Read a topology file.

    Raises:
        ConfigError: everything that is wrong with it, with file and line.
    """
    return load_config(Topology, path)

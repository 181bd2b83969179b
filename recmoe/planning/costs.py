"""Costs: what the parts of a step take on one device, measured on it or assumed from its rates."""

from pathlib import Path
from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat

from recmoe.config import Config, load_config
from recmoe.planning.rates import Rates
from recmoe.planning.topology import Efficiency

ACTIVATION_PASSES, INPUT_PASSES = 8, 2
"""Times that a number between two layers is written or read in a step where nothing was measured, by its writer and
by each of its readers."""

NumberBytes = {"fp32": 4, "bf16": 2}


class Costs(Config):
    """What one precision reaches in a whole step."""

    source: str = "measured"
    """Where the figures come from."""
    matrix_flops_per_s: PositiveFloat
    """Of experts and towers, forward and backward."""
    activations_per_s: PositiveFloat
    """Numbers that layers hand on, everything that happens to one in a step taken together."""
    inputs_per_s: PositiveFloat
    """Numbers that layers read, likewise: their gradients are added up."""
    mixed_per_s: PositiveFloat
    """Numbers of experts that a gate weights, likewise."""
    product_s: NonNegativeFloat
    """Seconds per matrix product of a forward pass, however small, its backward and its neighbours included."""
    share_s: NonNegativeFloat
    """Seconds per share that a gate gives an expert for one row."""
    row_bytes_per_s: PositiveFloat
    """Bytes of look-up and update of tables."""
    id_s: NonNegativeFloat
    """Seconds per id, whatever its width: sorting, hashing, bounds."""
    table_s: NonNegativeFloat
    """Seconds per table, however few its ids."""
    optimizer_bytes_per_s: PositiveFloat
    """Bytes of the dense optimizer, gradient clipping included."""
    step_s: NonNegativeFloat
    """Seconds of a step with next to nothing in it."""

    def shared_by(self, num_workers: int) -> "Costs":
        """What each of some workers reaches that share the cores and the memory."""
        rates = (
            "matrix_flops_per_s",
            "activations_per_s",
            "inputs_per_s",
            "mixed_per_s",
            "row_bytes_per_s",
            "optimizer_bytes_per_s",
        )
        return self.model_copy(update={name: getattr(self, name) / num_workers for name in rates})


class MachineCosts(Config):
    """A machine as it was measured: its limits, and what steps reach of them."""

    rates: Rates
    """Limits."""
    fp32: Costs
    """Steps in fp32."""
    bf16: Costs | None = None
    """Steps in bf16; none where the device does not multiply it in hardware."""

    def save(self, path: Path) -> None:
        """Write JSON, which ``load`` reads."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "MachineCosts":
        """Read what ``save`` wrote.

        Raises:
            ConfigError: everything that is wrong with it.
        """
        return load_config(cls, path)


def assumed_costs(rates: Rates, efficiency: Efficiency, precision: Literal["fp32", "bf16"]) -> Costs:
    """What a step takes on a device of which only the limits are known."""
    memory = rates.copy_bytes_per_s * efficiency.memory
    return Costs(
        source=f"assumed: {efficiency.matrix:.0%} of the matrix rate and {efficiency.memory:.0%} of the memory's "
        f"bandwidth of {rates.device} ({rates.source})",
        matrix_flops_per_s=rates.step_flops_per_s(precision) * efficiency.matrix,
        activations_per_s=memory / (ACTIVATION_PASSES * NumberBytes[precision]),
        inputs_per_s=memory / (INPUT_PASSES * NumberBytes[precision]),
        mixed_per_s=memory / (ACTIVATION_PASSES * NumberBytes[precision]),
        product_s=efficiency.product_s,
        share_s=0.0,
        row_bytes_per_s=rates.random_row_bytes_per_s * efficiency.memory,
        id_s=0.0,
        table_s=efficiency.table_s,
        optimizer_bytes_per_s=memory,
        step_s=efficiency.step_s,
    )

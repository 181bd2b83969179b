"""How tables are split and what travels between their shards, as config."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from recmoe.config import Config

ShardingKind = Literal[
    "table_wise", "column_wise", "row_wise", "table_row_wise", "table_column_wise", "grid_shard", "data_parallel"
]
CUTS_COLUMNS: tuple[ShardingKind, ...] = ("column_wise", "table_column_wise", "grid_shard")
CUTS_ROWS: tuple[ShardingKind, ...] = ("row_wise", "table_row_wise", "grid_shard")
SHARDS_SEQUENCES: tuple[ShardingKind, ...] = ("table_wise", "column_wise", "row_wise")
"""Kinds that torchrec has for tables whose vectors are not pooled."""
Kernel = Literal["fused", "fused_uvm", "fused_uvm_caching"]


class TableShardingConfig(Config):
    """Where one table lives. ``user: row_wise`` is short for ``user: {kind: row_wise}``."""

    kind: ShardingKind | None = None
    """How it is split over the workers; the planner chooses where nothing is said."""
    kernel: Kernel = "fused"
    """Whose memory it fills: the device's, the host's (fused_uvm), or the host's behind a cache on the device."""
    cache_share: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Share of the rows that the cache of fused_uvm_caching holds; 0.2 where nothing is said."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """What does not fit together, as (key path, message)."""
        if self.cache_share is not None and self.kernel != "fused_uvm_caching":
            yield "cache_share", f"kernel {self.kernel} has no cache; drop it, or use kernel: fused_uvm_caching"
        if self.kernel != "fused" and self.kind == "data_parallel":
            yield "kernel", f"a data_parallel table is whole on every device and cannot be {self.kernel}; drop one"


class CommunicationConfig(Config):
    """In what form numbers travel between the workers; the tables themselves stay float32."""

    forward: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"
    """Looked-up vectors. Where they are summed on their way, as with tables cut by rows, int8 travels as fp16."""
    backward: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Their gradients."""

    @property
    def is_plain(self) -> bool:
        """Whether everything travels as it is."""
        return self.forward == self.backward == "fp32"


def _from_kind(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


TableSharding = Annotated[TableShardingConfig, BeforeValidator(_from_kind)]
"""The long form, or the kind alone."""

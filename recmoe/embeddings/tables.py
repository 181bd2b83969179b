"""TablesConfig, and PlainTables: embedding tables in plain PyTorch."""

# B rows, K sparse keys, N ids of a key in all rows, V rows of a table, D its width, P sum of the widths of some keys

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol, cast, runtime_checkable

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from recmoe.config import Config
from recmoe.embeddings.initial import fill_initial
from recmoe.embeddings.row_format import FLOAT32, RowFormat
from recmoe.embeddings.sharding_config import (
    CUTS_COLUMNS,
    CUTS_ROWS,
    SHARDS_SEQUENCES,
    CommunicationConfig,
    TableSharding,
)
from recmoe.embeddings.sparse_optimizer import RowwiseAdagradConfig, SparseOptimizerConfig
from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout, SparseKey, TableSpec


class TablesConfig(Config):
    """Embedding tables: who computes them, where they live and how they learn."""

    backend: Literal["auto", "torchrec", "plain"] = "auto"
    """Sharded and fused tables of torchrec, plain ones of PyTorch, or the former where installed."""
    sharding: dict[str, TableSharding] = Field(default_factory=dict)
    """Where a table lives and how it is split over the workers; the planner chooses for tables that are not named."""
    dedup_ids: bool = False
    """Whether an id that a batch holds many times is sent and looked up once; pays where users or items repeat."""
    communication: CommunicationConfig = CommunicationConfig()
    """In what form vectors and gradients travel between the workers."""
    optimizer: SparseOptimizerConfig = RowwiseAdagradConfig()
    """What happens to the rows that a batch touched."""
    init_std: PositiveFloat = 0.01
    """Standard deviation of the initial values, which depend on seed and table name alone."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """What does not fit together, as (key path, message)."""
        for table, told in self.sharding.items():
            if told.kind in CUTS_COLUMNS and self.optimizer.kind == "rowwise_adagrad":
                yield (
                    f"sharding.{table}",
                    f"{told.kind} cuts rows apart, and rowwise_adagrad keeps one sum per row: the result would depend "
                    "on the number of workers; use table_wise, or tables.optimizer.kind: adagrad",
                )
            if told.kind in CUTS_COLUMNS and self.communication.forward == "int8":
                yield (
                    f"sharding.{table}",
                    f"{told.kind} cuts rows apart, and int8 needs the groups of a row together; use table_wise, or "
                    "tables.communication.forward: fp16",
                )
            if told.kind == "data_parallel" and self.optimizer.kind == "adam":
                yield (
                    f"sharding.{table}",
                    "data_parallel sums a gradient over all rows, from which adam cannot tell the touched ones; "
                    "use table_wise, or another tables.optimizer.kind",
                )
            if self.backend == "plain":
                yield f"sharding.{table}", "the plain back end keeps every table whole; drop it, or use torchrec"
        if self.backend == "plain" and self.dedup_ids:
            yield "dedup_ids", "the plain back end sends no ids; drop it, or use torchrec"
        if self.backend != "plain" and self.dedup_ids and self.optimizer.kind == "adagrad":
            yield (
                "dedup_ids",
                "torchrec's adagrad takes no ids that were made distinct; drop it, or use tables.optimizer.kind: "
                "rowwise_adagrad",
            )
        if self.backend == "plain" and not self.communication.is_plain:
            yield "communication", "the plain back end has no workers that talk; drop it, or use torchrec"

    def resolved_backend(self) -> Literal["torchrec", "plain"]:
        """What ``auto`` means here: torchrec where it is installed."""
        if self.backend != "auto":
            return self.backend
        return (
            "torchrec" if importlib.util.find_spec("torchrec") and importlib.util.find_spec("fbgemm_gpu") else "plain"
        )

    def width_problem(self, width: int) -> str | None:
        """Why tables of a width cannot be made, or None."""
        if width % 4 == 0 or self.resolved_backend() == "plain":
            return None
        return (
            f"width {width} is no multiple of 4, which torchrec's kernels need; use {width // 4 * 4 + 4}, "
            "or tables.backend: plain"
        )

    def launch_problems(self, *, layout: InputLayout, device_type: str, world_size: int) -> Iterator[tuple[str, str]]:
        """What the tables of a layout on this device and number of workers cannot do, as (key path, message)."""
        names = [table.name for table in layout.tables]
        for table in self.sharding:
            if table not in names:
                yield f"sharding.{table}", f"there is no such table; there are: {', '.join(names)}"
        if self.resolved_backend() == "plain":
            if world_size > 1:
                yield "backend", f"plain tables train in one process, not in {world_size} workers; install torchrec"
            return
        for table, told in self.sharding.items():
            if table in layout.sequence_tables and told.kind not in (None, *SHARDS_SEQUENCES):
                yield (
                    f"sharding.{table}",
                    f"a sequence reads table {table} row by row, which {told.kind} cannot do; use one of "
                    f"{', '.join(SHARDS_SEQUENCES)}",
                )
            if device_type == "cpu" and told.kernel != "fused":
                yield (
                    f"sharding.{table}",
                    f"kernel {told.kernel} keeps the table in the host's memory, beside a GPU; on a CPU every table is "
                    "there: drop it",
                )
        cut = [table for table, told in self.sharding.items() if told.kind in CUTS_ROWS]
        if device_type == "cpu" and world_size > 1 and self.dedup_ids and cut:
            yield (
                "dedup_ids",
                f"workers hold different numbers of distinct ids, and on CPUs cannot exchange the gradients of tables "
                f"that are cut by rows then ({', '.join(cut)}); drop one of both",
            )
        if device_type == "cpu" and self.optimizer.kind == "adam":
            yield "optimizer.kind", "torchrec has no adam for tables on a CPU; use rowwise_adagrad, adagrad or sgd"
        for spec in layout.tables:
            problem = self.width_problem(spec.width)
            if problem is not None:
                yield "backend", f"table {spec.name}: {problem}"

    def build(self, *, layout: InputLayout, seed: int) -> nn.Module:
        """Tables of a layout: plain ones ready to use, torchrec's to be placed first (``placement.place``)."""
        if self.resolved_backend() == "plain":
            return PlainTables(layout, seed=seed, init_std=self.init_std)
        from recmoe.embeddings.fused import TorchrecTables

        return TorchrecTables(layout, seed=seed, init_std=self.init_std, dedup_ids=self.dedup_ids)


class LookedUp(NamedTuple):
    """What a batch reads of the tables."""

    pooled_BP: Tensor
    """float32, one vector per pooled key beside the next; zeros for rows without ids."""
    entries: dict[str, Tensor]
    """By key of a sequence: float32 [N, vector width], one vector per id in the order of the batch."""


@runtime_checkable
class LooksUp(Protocol):
    """What gives a model the vectors of the ids of a batch."""

    def look_up(self, batch: Batch, keys: Sequence[SparseKey] | None = None) -> LookedUp:
        """The vectors of some keys, all by default."""
        ...


@runtime_checkable
class Tables(LooksUp, Protocol):
    """What both back ends offer."""

    layout: InputLayout

    def table_weights(self) -> dict[str, Tensor]:
        """Live weights by table name: a tensor [V, D], or a sharded one of that shape."""
        ...


class PlainTables(nn.Module):
    """Embedding tables as plain parameters ``tables.<name>``, with sparse gradients.

    Example: two keys share table ``tag`` (sum); the second row of key ``tags`` is empty::

                   query  tags            pooled_BP
            row 0  [3]    [5, 9]          [ tag[3] | tag[5] + tag[9] ]
            row 1  [4]    []              [ tag[4] | 0               ]

    Args:
        layout: tables and sparse keys; keys of one table stand together.
        seed, init_std: the initial values, the same as the torchrec back end's.
        formats: by table, how its rows are kept, float32 by default; in other formats they are looked up alone, and
            are zeros until they are filled in.
    """

    def __init__(
        self,
        layout: InputLayout,
        *,
        seed: int = 0,
        init_std: float = 0.01,
        formats: Mapping[str, RowFormat] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.layout = layout
        self.tables = nn.Module()
        self._specs = {spec.name: spec for spec in layout.tables}
        self._members = {spec.name: member_name(spec.name) for spec in layout.tables}
        self._formats = {spec.name: formats.get(spec.name, FLOAT32) for spec in layout.tables}
        for spec in layout.tables:
            row_format = self._formats[spec.name]
            weight_VC = torch.zeros(spec.num_rows, spec.width + row_format.num_extra, dtype=row_format.dtype)
            if row_format == FLOAT32:
                fill_initial(weight_VC, spec=spec, seed=seed, std=init_std)
            weight = nn.Parameter(weight_VC, requires_grad=row_format == FLOAT32)
            self.tables.register_parameter(member_name(spec.name), weight)

    def forward(self, batch: Batch, keys: Sequence[SparseKey] | None = None) -> Tensor:
        """The pooled vectors alone, pooled_BP."""
        return self.look_up(batch, keys).pooled_BP

    def look_up(self, batch: Batch, keys: Sequence[SparseKey] | None = None) -> LookedUp:
        """The vectors of the ids of a batch.

        Args:
            batch: holds the ids of ``keys``, in their order.
            keys: some of the layout's sparse keys in layout order; all by default.
        """
        keys = self.layout.sparse if keys is None else keys
        num_rows = batch.num_rows
        none_B0 = batch.dense_BF.new_zeros(num_rows, 0)
        if not keys:
            return LookedUp(none_B0, {})
        assert batch.lengths_KB.shape[0] == len(keys), "the batch holds other keys than the ones asked for"
        if not self.training and not any(key.is_list for key in keys):
            # One id a row: its vector is what pooling would give, for a third of the time of a request's few rows.
            rows_K = batch.values.view(len(keys), num_rows).unbind(0)
            return LookedUp(self._side_by_side([key.table for key in keys], rows_K), {})
        pieces: list[Tensor] = []
        entries: dict[str, Tensor] = {}
        first_key = first_id = 0
        num_ids_K = batch.count_ids()
        for (table, is_sequence), group in groupby(keys, key=lambda key: (key.table, key.is_sequence)):
            members = list(group)
            last_key = first_key + len(members)
            last_id = first_id + sum(num_ids_K[first_key:last_key])
            ids, spec = batch.values[first_id:last_id], self._specs[table]
            if is_sequence:
                vectors = self._rows(table, ids)[:, : spec.vector_width]
                split = torch.split(vectors, num_ids_K[first_key:last_key])
                entries |= {key.name: vectors_ND for key, vectors_ND in zip(members, split, strict=True)}
            else:
                lengths_N = batch.lengths_KB[first_key:last_key].reshape(-1)
                pieces.extend(torch.split(self._pool(spec, ids, lengths_N), num_rows))
            first_key, first_id = last_key, last_id
        return LookedUp(torch.cat(pieces, dim=1) if pieces else none_B0, entries)

    def _side_by_side(self, tables: Sequence[str], rows_K: Sequence[Tensor]) -> Tensor:
        """vectors_BP of one row per table, unpacked together where they are alike: a request is few rows of many."""
        stored = [self.weight(table).index_select(0, rows_B) for table, rows_B in zip(tables, rows_K, strict=True)]
        formats = [self._formats[table] for table in tables]
        if len(set(formats)) == 1 and formats[0].num_extra == 0:
            return formats[0].unpack(torch.cat(stored, dim=1))
        if len(set(formats)) == 1 and len({rows_BC.shape[1] for rows_BC in stored}) == 1:
            return formats[0].unpack(torch.stack(stored, dim=1).flatten(0, 1)).view(len(stored[0]), -1)
        return torch.cat([one.unpack(rows_BC) for one, rows_BC in zip(formats, stored, strict=True)], dim=1)

    def _rows(self, table: str, ids_N: Tensor) -> Tensor:
        """rows_ND of some ids, in float32."""
        weight = self.weight(table)
        if self.training:
            return F.embedding(ids_N, weight, sparse=True)
        return self._formats[table].unpack(weight.index_select(0, ids_N))

    def _pool(self, spec: TableSpec, ids: Tensor, lengths_N: Tensor) -> Tensor:
        weight_VD: Tensor = self.weight(spec.name)
        if self._formats[spec.name] != FLOAT32:
            # Rows are unpacked first, each as often as it is asked for.
            weight_VD, ids = self._rows(spec.name, ids), torch.arange(len(ids), device=ids.device)
        ends_N = lengths_N.to(torch.int64).cumsum(0)
        return F.embedding_bag(ids, weight_VD, ends_N - lengths_N, mode=spec.pooling, sparse=self.training)

    def weight(self, table: str) -> nn.Parameter:
        """The parameter of a table: [V, D], with what its format adds to a row."""
        return cast(nn.Parameter, self.tables._parameters[self._members[table]])

    def table_weights(self) -> dict[str, Tensor]:
        """Live weights by table name."""
        return {spec.name: self.weight(spec.name).detach() for spec in self.layout.tables}


def member_name(table: str) -> str:
    """The name of a table as a member of a module, where dots and names of methods are taken.

    Reversible and one to one: ``%`` and ``.`` are percent-encoded, a taken name gets a ``%`` in front.
    """
    name = table.replace("%", "%25").replace(".", "%2E")
    return f"%{name}" if hasattr(nn.ModuleDict, name) or name in _TAKEN else name


_TAKEN = frozenset(vars(nn.ModuleDict())) | {""}

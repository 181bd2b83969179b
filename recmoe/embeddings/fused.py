"""TorchrecTables: the fused, sharded back end; FusedOptimizer: its sparse optimizer inside the backward pass."""

# B rows, N ids of a key in all rows, W width of a row of a table, P sum of the widths of the pooled keys

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.nn import functional

from recmoe.embeddings.distinct_ids import DistinctIds
from recmoe.embeddings.initial import fill_initial
from recmoe.embeddings.one_thread import on_one_thread
from recmoe.embeddings.sparse_optimizer import SlotState, SparseOptimizer, SparseOptimizerConfig
from recmoe.embeddings.tables import LookedUp, member_name
from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout, SparseKey, TableSpec

with warnings.catch_warnings():
    # fbgemm's CPU wheel warns of kernels that it does not have, torch of what it will drop.
    warnings.simplefilter("ignore")
    from torchrec import (
        EmbeddingBagCollection,
        EmbeddingBagConfig,
        EmbeddingCollection,
        EmbeddingConfig,
        KeyedJaggedTensor,
        KeyedTensor,
        PoolingType,
    )
    from torchrec.optim.keyed import CombinedOptimizer

BAGS = "bags"
"""The collection of the tables that pool."""


class TorchrecTables(nn.Module):
    """Embedding tables as collections of torchrec, without weights until they are sharded.

    A table that no sequence reads is part of an ``EmbeddingBagCollection``, which pools. A table that a sequence reads
    gives a vector per id, also for the keys beside the sequence that are pooled, and torchrec wants such tables in an
    ``EmbeddingCollection`` for each width. What is looked up, and its order, are those of ``PlainTables``.

    Args:
        layout: tables and sparse keys; keys of one table stand together.
        seed, init_std: the initial values, the same as the plain back end's.
        dedup_ids: whether an id that a key holds many times is looked up once.
    """

    def __init__(self, layout: InputLayout, *, seed: int = 0, init_std: float = 0.01, dedup_ids: bool = False) -> None:
        super().__init__()
        self.layout = layout
        self._seed = seed
        self._init_std = init_std
        self._home = {
            spec.name: f"rows_{spec.width}" if spec.name in layout.sequence_tables else BAGS for spec in layout.tables
        }
        self.collections = nn.ModuleDict()
        self._places: dict[str, list[int]] = {}
        for name in sorted(set(self._home.values())):
            specs = [spec for spec in layout.tables if self._home[spec.name] == name]
            self.collections[name] = _bag_collection(specs) if name == BAGS else _row_collection(specs)
            self._places[name] = [i for i, key in enumerate(layout.sparse) if self._home[key.table] == name]
        self._pooling = {spec.name: spec.pooling for spec in layout.tables}
        bag_keys = tuple(layout.sparse[place] for place in self._places.get(BAGS, []))
        self._distinct = DistinctIds(replace(layout, sparse=bag_keys)) if dedup_ids else None

    def forward(self, batch: Batch, keys: Sequence[SparseKey] | None = None) -> Tensor:
        """The pooled vectors alone, pooled_BP."""
        return self.look_up(batch, keys).pooled_BP

    def look_up(self, batch: Batch, keys: Sequence[SparseKey] | None = None) -> LookedUp:
        """The vectors of the ids of a batch.

        Sharded tables look up all keys at once: parts of a row are the plain back end's to serve.
        """
        assert keys is None or tuple(keys) == self.layout.sparse, "sharded tables look up all keys at once"
        if torch.is_inference_mode_enabled():
            # fbgemm's CPU kernels exist for autograd alone, which inference mode leaves out.
            with torch.inference_mode(False), torch.no_grad():
                return self._look_up(batch)
        return self._look_up(batch)

    def jagged(self, batch: Batch) -> dict[str, KeyedJaggedTensor]:
        """By collection, its ids of a batch in torchrec's form."""
        jagged = {}
        for name, places in self._places.items():
            keys = [self.layout.sparse[place].name for place in places]
            part = batch if len(keys) == len(self.layout.sparse) else _select(batch, places)
            if name == BAGS and self._distinct is not None:
                jagged[name] = self._distinct(part)
            else:
                # Shares the memory of the batch.
                jagged[name] = KeyedJaggedTensor(keys=keys, values=part.values, lengths=part.lengths_KB.reshape(-1))
        return jagged

    def _look_up(self, batch: Batch) -> LookedUp:
        jagged = self.jagged(batch)
        if batch.values.device.type == "cpu":
            found = on_one_thread(lambda: self._collected(jagged, batch.lengths_KB))
        else:
            found = self._collected(jagged, batch.lengths_KB)
        if list(self._places) == [BAGS]:
            return LookedUp(found[0], {})
        return self._pooled_and_not(found, batch)

    def _collected(self, jagged: dict[str, KeyedJaggedTensor], lengths_KB: Tensor) -> tuple[Tensor, ...]:
        """What every collection gives: the bags one tensor for all keys, the others one for each key."""
        # All are asked before one is waited for.
        asked = {name: collection(jagged[name]) for name, collection in self.collections.items()}
        found: list[Tensor] = []
        for name, result in asked.items():
            if name == BAGS:
                found.append(self._bags(result, lengths_KB))
            else:
                found += [result[self.layout.sparse[place].name].values() for place in self._places[name]]
        return tuple(found)

    def _bags(self, pooled: KeyedTensor, lengths_KB: Tensor) -> Tensor:
        names = list(pooled.keys())
        keys = [(place, self.layout.sparse[place]) for place in self._places[BAGS]]
        means = [(place, key) for place, key in keys if self._pooling[key.table] == "mean"]
        # The sharded module orders its output by kind of sharding and by rank.
        if names == [key.name for _, key in keys] and not means:
            return pooled.values()  # type: ignore[no-any-return]
        # The gradient of a split is one copy; that of a slice is a matrix of zeros per key.
        pieces = dict(zip(names, pooled.values().split(pooled.length_per_key(), dim=1), strict=True))
        for place, key in means:
            pieces[key.name] = pieces[key.name] / lengths_KB[place].clamp(min=1)[:, None]
        return torch.cat([pieces[key.name] for _, key in keys], dim=1)

    def _pooled_and_not(self, found: tuple[Tensor, ...], batch: Batch) -> LookedUp:
        """Pools what a key beside a sequence reads, and puts all pooled keys in the order of the layout."""
        pieces: dict[str, Tensor] = {}
        entries: dict[str, Tensor] = {}
        rest = iter(found)
        for name, places in self._places.items():
            keys = [self.layout.sparse[place] for place in places]
            if name == BAGS:
                split = torch.split(next(rest), [key.width for key in keys], dim=1)
                pieces |= {key.name: piece for key, piece in zip(keys, split, strict=True)}
                continue
            for place, key in zip(places, keys, strict=True):
                vectors_NW = next(rest)
                if key.is_sequence:
                    entries[key.name] = vectors_NW[:, : key.vector_width]
                else:
                    pieces[key.name] = _pool(vectors_NW, batch.lengths_KB[place], self._pooling[key.table])
        pooled = [pieces[key.name] for key in self.layout.pooled]
        return LookedUp(torch.cat(pooled, dim=1) if pooled else batch.dense_BF[:, :0], entries)

    def table_weights(self) -> dict[str, Tensor]:
        """Live weights by table name: a sharded tensor, or a plain one where the table is replicated."""
        state = self.collections.state_dict()
        return {spec.name: state[self._weight_name(spec.name)] for spec in self.layout.tables}

    def _weight_name(self, table: str) -> str:
        home = self._home[table]
        return f"{home}.{'embedding_bags' if home == BAGS else 'embeddings'}.{member_name(table)}.weight"

    @torch.no_grad()
    def fill_initial(self) -> None:
        """Give every shard on this rank its part of the initial values."""
        weights = self.table_weights()
        for spec in self.layout.tables:
            weight = weights[spec.name]
            if isinstance(weight, ShardedTensor):
                parts = [(shard.tensor, shard.metadata.shard_offsets) for shard in weight.local_shards()]
            else:
                parts = [(weight, [0, 0])]
            for tensor, (row, column) in parts:
                fill_initial(tensor, spec=spec, seed=self._seed, std=self._init_std, row=row, column=column)

    def replicated(self) -> dict[str, nn.Parameter]:
        """Parameters of the tables that every rank holds whole (data_parallel), by table name."""
        sharded = {name for name, weight in self.table_weights().items() if isinstance(weight, ShardedTensor)}
        parameters = dict(self.collections.named_parameters())
        return {
            spec.name: parameters[self._weight_name(spec.name)]
            for spec in self.layout.tables
            if spec.name not in sharded
        }


def _bag_collection(specs: Sequence[TableSpec]) -> EmbeddingBagCollection:
    # One kernel sums for all tables. Means made by torchrec take another, and where some tables are cut by rows they
    # divide the vectors of the others, too.
    configs = [EmbeddingBagConfig(**_arguments(spec), pooling=PoolingType.SUM) for spec in specs]
    return EmbeddingBagCollection(device=torch.device("meta"), tables=configs)


def _row_collection(specs: Sequence[TableSpec]) -> EmbeddingCollection:
    configs = [EmbeddingConfig(**_arguments(spec)) for spec in specs]
    return EmbeddingCollection(device=torch.device("meta"), tables=configs)


def _arguments(spec: TableSpec) -> dict[str, Any]:
    return {
        "name": member_name(spec.name),
        "num_embeddings": spec.num_rows,
        "embedding_dim": spec.width,
        "feature_names": list(spec.keys),
        "init_fn": _leave,
    }


def _select(batch: Batch, places: Sequence[int]) -> Batch:
    """The batch with some of its keys."""
    ids_K = torch.split(batch.values, batch.count_ids())
    return replace(batch, values=torch.cat([ids_K[place] for place in places]), lengths_KB=batch.lengths_KB[places])


def _pool(vectors_NW: Tensor, lengths_B: Tensor, pooling: str) -> Tensor:
    """The sum or mean of the vectors of every row."""
    starts_B = lengths_B.cumsum(0) - lengths_B
    places_N = torch.arange(len(vectors_NW), device=vectors_NW.device)
    return functional.embedding_bag(places_N, vectors_NW, starts_B, mode=pooling)


def _leave(weight: Tensor) -> Tensor:
    """Initialise nothing: a shard does not know its place here; ``fill_initial`` does."""
    return weight


class FusedOptimizer:
    """The sparse optimizer of sharded tables: it steps inside the backward pass.

    Replicated tables are left out of the fused step by torchrec; their averaged gradient gets the same
    rule here. So ``step`` follows every backward, as for plain tables.

    Args:
        tables: sharded tables.
        fused: the fused optimizers of the sharded module.
        rule: what happens to a touched row.
    """

    def __init__(self, tables: TorchrecTables, fused: CombinedOptimizer, rule: SparseOptimizerConfig) -> None:
        self.rule = rule
        self.lr = rule.lr
        self._given_lr = rule.lr
        self._fused = fused
        self._replicated = SparseOptimizer(tables.replicated(), rule)
        self._names = {member_name(spec.name): spec.name for spec in tables.layout.tables}
        self._num_steps = torch.zeros(1)

    def set_lr(self, lr: float) -> None:
        """Step size from the next backward on."""
        self.lr = lr
        self._replicated.set_lr(lr)
        if lr == self._given_lr:
            return
        self._given_lr = lr
        for group in self._fused.param_groups:
            group["lr"] = lr
        # For a fused optimizer, a step is what hands the rate to the kernel.
        self._fused.step()

    def scale_lr(self, share: float) -> None:
        """Step size as a share of the configured one, such as a schedule's factor."""
        self.set_lr(self.rule.lr * share)

    def step(self) -> None:
        """Step the replicated tables; the others have stepped in the backward."""
        self._num_steps += 1
        self._replicated.step()

    def zero_grad(self) -> None:
        """Drop gradients of the replicated tables; the others have none."""
        self._replicated.zero_grad()

    def state(self) -> dict[str, SlotState]:
        """State by table and slot; sharded like the weights, and live."""
        state = self._replicated.state()
        slots = list(self.rule.slots(1, 1))
        if "step" in slots:
            # Adam's bias correction counts steps; the kernel keeps the count, and not among its state.
            state = {table: {"step": self._num_steps} for table in self._names.values()}
        for key, values in self._fused.state_dict()["state"].items():
            table = self._names[key.removesuffix(".weight").rpartition(".")[2]]
            state.setdefault(table, {}).update(zip(slots, values.values(), strict=False))
        return state

    def after_load(self) -> None:
        """Called when the tensors of ``state()`` were filled from a checkpoint: tell the kernels the step."""
        if "step" in self.rule.slots(1, 1):
            self._fused.set_optimizer_step(int(self._num_steps))

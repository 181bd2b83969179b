"""TorchrecTables: the fused, sharded back end; FusedOptimizer: its sparse optimizer inside the backward pass."""

# B rows, P sum of the widths of the sparse keys

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor.api import ShardedTensor

from recmoe.embeddings.distinct_ids import DistinctIds
from recmoe.embeddings.initial import fill_initial
from recmoe.embeddings.one_thread import on_one_thread
from recmoe.embeddings.sparse_optimizer import SlotState, SparseOptimizer, SparseOptimizerConfig
from recmoe.embeddings.tables import member_name
from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout, SparseKey, TableSpec

with warnings.catch_warnings():
    # fbgemm's CPU wheel warns of kernels that it does not have, torch of what it will drop.
    warnings.simplefilter("ignore")
    from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor, PoolingType
    from torchrec.optim.keyed import CombinedOptimizer


class TorchrecTables(nn.Module):
    """Embedding tables as an ``EmbeddingBagCollection``, without weights until it is sharded.

    The pooled vectors and their order are those of ``PlainTables``.

    Args:
        layout: tables and sparse keys; keys of one table stand together.
        seed, init_std: the initial values, the same as the plain back end's.
        dedup_ids: whether an id that a key holds many times is looked up once.
    """

    def __init__(self, layout: InputLayout, *, seed: int = 0, init_std: float = 0.01, dedup_ids: bool = False) -> None:
        super().__init__()
        self.layout = layout
        self.bags: nn.Module = EmbeddingBagCollection(
            device=torch.device("meta"), tables=[_bag_config(spec) for spec in layout.tables]
        )
        self._seed = seed
        self._init_std = init_std
        self._keys = [key.name for key in layout.sparse]
        means = {spec.name for spec in layout.tables if spec.pooling == "mean"}
        self._means = [number for number, key in enumerate(layout.sparse) if key.table in means]
        self._distinct = DistinctIds(layout) if dedup_ids else None

    def forward(self, batch: Batch, keys: Sequence[SparseKey] | None = None) -> Tensor:
        """Look up and pool: pooled_BP, one vector per key beside the next; zeros for rows without ids.

        Sharded tables look up all keys at once: parts of a row are the plain back end's to serve.
        """
        assert keys is None or tuple(keys) == self.layout.sparse, "sharded tables look up all keys at once"
        if torch.is_inference_mode_enabled():
            # fbgemm's CPU kernels exist for autograd alone, which inference mode leaves out.
            with torch.inference_mode(False), torch.no_grad():
                return self._look_up(batch)
        return self._look_up(batch)

    def jagged(self, batch: Batch) -> KeyedJaggedTensor:
        """The ids of a batch in torchrec's form; shares their memory where they are not made distinct."""
        if self._distinct is not None:
            return self._distinct(batch)
        return KeyedJaggedTensor(keys=self._keys, values=batch.values, lengths=batch.lengths_KB.reshape(-1))

    def _look_up(self, batch: Batch) -> Tensor:
        jagged = self.jagged(batch)
        if batch.values.device.type == "cpu":
            return on_one_thread(lambda: self._pooled(jagged, batch.lengths_KB))
        return self._pooled(jagged, batch.lengths_KB)

    def _pooled(self, jagged: KeyedJaggedTensor, lengths_KB: Tensor) -> Tensor:
        pooled = self.bags(jagged)
        names = list(pooled.keys())
        # The sharded module orders its output by kind of sharding and by rank.
        if names == self._keys and not self._means:
            return pooled.values()  # type: ignore[no-any-return]
        # The gradient of a split is one copy; that of a slice is a matrix of zeros per key.
        pieces = dict(zip(names, pooled.values().split(pooled.length_per_key(), dim=1), strict=True))
        for key in self._means:
            pieces[self._keys[key]] = pieces[self._keys[key]] / lengths_KB[key].clamp(min=1)[:, None]
        return torch.cat([pieces[key] for key in self._keys], dim=1)

    def table_weights(self) -> dict[str, Tensor]:
        """Live weights by table name: a sharded tensor, or a plain one where the table is replicated."""
        state = self.bags.state_dict()
        return {spec.name: state[_weight_name(spec.name)] for spec in self.layout.tables}

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
        parameters = dict(self.bags.named_parameters())
        return {
            spec.name: parameters[_weight_name(spec.name)] for spec in self.layout.tables if spec.name not in sharded
        }


def _weight_name(table: str) -> str:
    return f"embedding_bags.{member_name(table)}.weight"


def _bag_config(spec: TableSpec) -> EmbeddingBagConfig:
    return EmbeddingBagConfig(
        name=member_name(spec.name),
        num_embeddings=spec.num_rows,
        embedding_dim=spec.width,
        feature_names=list(spec.keys),
        # One kernel sums for all tables. Means made by torchrec take another, and where some tables are cut by rows
        # they divide the vectors of the others, too.
        pooling=PoolingType.SUM,
        init_fn=_leave,
    )


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
            table = self._names[key.rpartition("embedding_bags.")[2].removesuffix(".weight")]
            state.setdefault(table, {}).update(zip(slots, values.values(), strict=False))
        return state

    def after_load(self) -> None:
        """Called when the tensors of ``state()`` were filled from a checkpoint: tell the kernels the step."""
        if "step" in self.rule.slots(1, 1):
            self._fused.set_optimizer_step(int(self._num_steps))

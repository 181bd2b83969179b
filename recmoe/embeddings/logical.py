"""The logical model inside whatever wraps and shards it: tables by name, dense weights by name."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.nn.parallel import DistributedDataParallel

from recmoe.embeddings.tables import Tables


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside the wrappers of torch and torchrec."""
    # By name, for torchrec may not be installed.
    while isinstance(model, DistributedDataParallel) or type(model).__name__ == "DistributedModelParallel":
        inner = model.module
        assert isinstance(inner, nn.Module)
        model = inner
    return model


def find_tables(model: nn.Module) -> tuple[str, Tables]:
    """The one module of tables in a model, and its name there."""
    found = [(name, module) for name, module in unwrap(model).named_modules() if isinstance(module, Tables)]
    assert len(found) == 1, f"a model has one module of tables, found {[name for name, _ in found]}"
    return found[0]


def dense_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter but the tables', under the name it has without wrappers."""
    prefix = _prefix(find_tables(model)[0])
    return ((name, p) for name, p in unwrap(model).named_parameters() if not name.startswith(prefix))


def dense_state(model: nn.Module) -> dict[str, Tensor]:
    """Live parameters and buffers of all but the tables, under the names they have without wrappers."""
    prefix = _prefix(find_tables(model)[0])
    members = {**dict(unwrap(model).named_parameters()), **_kept_buffers(unwrap(model))}
    return {name: tensor.detach() for name, tensor in members.items() if not name.startswith(prefix)}


def logical_tables(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every table whole, one at a time, in layout order; collective where the model is sharded.

    Yields:
        Name and weights [V, D]; a copy where the table is sharded, the live weights elsewhere.
    """
    for name, weight in find_tables(model)[1].table_weights().items():
        yield name, gather(weight)


def gather(value: Tensor) -> Tensor:
    """The whole of a sharded tensor in every process; collective. Other tensors as they are."""
    if not isinstance(value, ShardedTensor):
        return value
    metadata = value.metadata()
    mine = [shard.tensor for shard in value.local_shards()]
    device = mine[0].device if mine else _device(value)
    whole = torch.empty(metadata.size, dtype=metadata.tensor_properties.dtype, device=device)
    local = {tuple(shard.metadata.shard_offsets): shard.tensor for shard in value.local_shards()}
    for shard in metadata.shards_metadata:
        offsets = tuple(shard.shard_offsets)
        assert shard.placement is not None
        owner = shard.placement.rank()
        assert owner is not None
        part = torch.empty(shard.shard_sizes, dtype=whole.dtype, device=device)
        if owner == dist.get_rank():
            part.copy_(local[offsets])
        if dist.get_world_size() > 1:
            dist.broadcast(part, src=owner)
        index = tuple(slice(start, start + size) for start, size in zip(offsets, shard.shard_sizes, strict=True))
        whole[index] = part
    return whole


def copy_into(target: nn.Module | None, source: nn.Module) -> None:
    """Copy tables and dense weights into a model of the same parts with plain tables.

    Collective where the source is sharded: every rank calls it, those that need no copy with None.
    """
    weights = None if target is None else find_tables(target)[1].table_weights()
    for name, weight in logical_tables(source):
        if weights is not None:
            weights[name].copy_(weight)
    if target is None:
        return
    dense = dense_state(target)
    given = dense_state(source)
    assert dense.keys() == given.keys(), sorted(dense.keys() ^ given.keys())
    for name, tensor in dense.items():
        tensor.copy_(given[name])


def _prefix(name: str) -> str:
    return f"{name}." if name else ""


def _kept_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Buffers that belong to the state."""
    kept = {}
    for path, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                kept[f"{path}.{name}" if path else name] = buffer
    return kept


def _device(value: ShardedTensor) -> torch.device:
    """Where a rank without a shard receives the others'."""
    placement = value.metadata().shards_metadata[0].placement
    assert placement is not None
    device = placement.device()
    return torch.device("cuda", torch.cuda.current_device()) if device.type == "cuda" else device

"""The logical model inside whatever wraps and shards it: tables by name, dense weights by name."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed._shard.metadata import ShardMetadata
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.distributed._shard.sharded_tensor.metadata import ShardedTensorMetadata, TensorProperties
from torch.distributed._shard.sharded_tensor.shard import Shard
from torch.nn.parallel import DistributedDataParallel

from recmoe.embeddings.tables import Tables
from recmoe.workers import DividedTensor, HoldsParts


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
    """Every parameter but the tables', under the name it has without wrappers; of divided ones the part that is here,
    under the name of the whole."""
    prefix = _prefix(find_tables(model)[0])
    whole = {part: name for name, (part, _) in divided_parameters(model).items()}
    return ((whole.get(name, name), p) for name, p in unwrap(model).named_parameters() if not name.startswith(prefix))


def dense_state(model: nn.Module) -> dict[str, Tensor]:
    """Live parameters and buffers of all but the tables, under the names they have without wrappers.

    Those that workers have divided are sharded, and every worker has the names of all.
    """
    prefix = _prefix(find_tables(model)[0])
    parameters = dict(unwrap(model).named_parameters())
    divided = divided_parameters(model)
    parts = {part for part, _ in divided.values()}
    members = {**parameters, **_kept_buffers(unwrap(model))}
    device = next(iter(parameters.values())).device
    return {
        **{name: t.detach() for name, t in members.items() if not name.startswith(prefix) and name not in parts},
        **{
            name: sharded(tensor, None if part is None else parameters[part].detach(), device=device)
            for name, (part, tensor) in divided.items()
        },
    }


def divided_parameters(model: nn.Module) -> dict[str, tuple[str | None, DividedTensor]]:
    """What workers hold parts of: by the name of the whole, that of the part here, and who holds what."""
    return {
        f"{_prefix(path)}{name}": (None if tensor.here is None else f"{_prefix(path)}{tensor.here}", tensor)
        for path, module in unwrap(model).named_modules()
        if isinstance(module, HoldsParts)
        for name, tensor in module.divided().items()
    }


def sharded(divided: DividedTensor, part: Tensor | None, *, device: torch.device) -> Tensor:
    """What workers have divided as one tensor, of which this one holds a part or none.

    Args:
        part: live; of the optimizer's state too, which is divided as its parameter is.
        device: where parts are.
    """
    boxes = [
        ShardMetadata(list(start), list(size), f"rank:{worker}/{device}")
        for worker, (start, size) in divided.box_of_worker.items()
    ]
    here = [] if part is None else [Shard(part, next(box for box in boxes if _rank_of(box) == dist.get_rank()))]
    properties = TensorProperties(dtype=torch.float32 if part is None else part.dtype)
    metadata = ShardedTensorMetadata(boxes, torch.Size(divided.shape), properties)
    return ShardedTensor._init_from_local_shards_and_global_metadata(here, metadata)


def part_here(tensor: Tensor, divided: DividedTensor) -> Tensor:
    """This worker's part of a tensor that is divided so, sharded or whole; all of a single number."""
    if isinstance(tensor, ShardedTensor):
        return tensor.local_shards()[0].tensor
    if not tensor.ndim:
        return tensor
    box = zip(*divided.box_of_worker[dist.get_rank()], strict=True)
    return tensor[tuple(slice(start, start + size) for start, size in box)]


def whole_shape(tensor: Tensor) -> tuple[int, ...]:
    """Of a tensor that may be sharded."""
    return tuple(tensor.metadata().size if isinstance(tensor, ShardedTensor) else tensor.shape)


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
        owner = _rank_of(shard)
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


def _rank_of(shard: ShardMetadata) -> int:
    assert shard.placement is not None
    owner = shard.placement.rank()
    assert owner is not None
    return owner


def _device(value: ShardedTensor) -> torch.device:
    """Where a rank without a shard receives the others'."""
    placement = value.metadata().shards_metadata[0].placement
    assert placement is not None
    device = placement.device()
    return torch.device("cuda", torch.cuda.current_device()) if device.type == "cuda" else device

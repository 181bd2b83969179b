"""State of the dense optimizer by parameter name, so that it does not depend on the order of parameters."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch import distributed as dist

from recmoe.embeddings.logical import dense_parameters, divided_parameters, part_here, sharded
from recmoe.training.stored_tensors import StoredTensor
from recmoe.workers import DividedTensor


def dense_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Live state as ``parameter/slot``; nothing before the first step. That of a divided parameter is sharded."""
    names = {id(parameter): name for name, parameter in dense_parameters(model)}
    divided = divided_parameters(model)
    return {
        f"{name}/{slot}": told
        for parameter, slots in optimizer.state.items()
        for slot, tensor in slots.items()
        if isinstance(tensor, Tensor)
        for name in [names[id(parameter)]]
        for told in _logical(tensor, divided[name][1] if name in divided else None)
    }


def _logical(tensor: Tensor, divided: DividedTensor | None) -> Iterator[Tensor]:
    """A slot as it is saved; of what all who hold a part have alike, such as a count of steps, the first one's."""
    if divided is None:
        yield tensor
    elif tensor.ndim:
        yield sharded(divided, tensor, device=tensor.device)
    elif min(divided.box_of_worker) == dist.get_rank():
        alone = replace(divided, shape=(), box_of_worker={dist.get_rank(): ((), ())})
        yield sharded(alone, tensor, device=tensor.device)


def empty_dense_optimizer_state(
    stored: Mapping[str, StoredTensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Tensors to read the saved state into; the optimizer itself has none before its first step."""
    owned = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    parameters = {name: p for name, p in dense_parameters(model) if id(p) in owned}
    divided = divided_parameters(model)
    empty = {}
    for key, entry in stored.items():
        prefix, _, rest = key.partition("/")
        name = rest.rpartition("/")[0]
        # What others hold is theirs to read.
        if prefix == "dense_optimizer" and (name in parameters or name not in divided):
            parameter = parameters[name]
            is_part = name in divided and bool(entry.shape)
            shape = parameter.shape if is_part else entry.shape
            slot = torch.empty(shape, dtype=entry.dtype, device=parameter.device)
            empty[rest] = sharded(divided[name][1], slot, device=slot.device) if is_part else slot
    return empty


def set_dense_optimizer_state(state: Mapping[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Replace the state of the optimizer; of divided parameters this worker's part is taken."""
    names = {id(parameter): name for name, parameter in dense_parameters(model)}
    divided = divided_parameters(model)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    slots: dict[int, dict[str, Tensor]] = {}
    for index, parameter in enumerate(parameters):
        name = names[id(parameter)]
        own = {
            key.rpartition("/")[2]: part_here(tensor, divided[name][1]) if name in divided else tensor
            for key, tensor in state.items()
            if key.rpartition("/")[0] == name
        }
        if own:
            slots[index] = own
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})

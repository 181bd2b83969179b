"""State of the dense optimizer by parameter name, so that it does not depend on the order of parameters."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from recmoe.embeddings.logical import dense_parameters
from recmoe.training.stored_tensors import StoredTensor


def dense_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Live state as ``parameter/slot``; nothing before the first step."""
    names = {id(parameter): name for name, parameter in dense_parameters(model)}
    return {
        f"{names[id(parameter)]}/{slot}": tensor
        for parameter, slots in optimizer.state.items()
        for slot, tensor in slots.items()
        if isinstance(tensor, Tensor)
    }


def empty_dense_optimizer_state(
    stored: Mapping[str, StoredTensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Tensors to read the saved state into; the optimizer itself has none before its first step."""
    owned = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    parameters = {name: p for name, p in dense_parameters(model) if id(p) in owned}
    empty = {}
    for key, entry in stored.items():
        prefix, _, rest = key.partition("/")
        if prefix == "dense_optimizer":
            parameter = parameters[rest.rpartition("/")[0]]
            empty[rest] = torch.empty(entry.shape, dtype=entry.dtype, device=parameter.device)
    return empty


def set_dense_optimizer_state(state: Mapping[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    names = {id(parameter): name for name, parameter in dense_parameters(model)}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    slots: dict[int, dict[str, Tensor]] = {}
    for index, parameter in enumerate(parameters):
        prefix = f"{names[id(parameter)]}/"
        own = {
            key.removeprefix(prefix): tensor for key, tensor in state.items() if key.rpartition("/")[0] + "/" == prefix
        }
        if own:
            slots[index] = own
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})

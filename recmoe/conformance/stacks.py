"""The experts of a model, and which numbers of which weight are whose."""

# E experts

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from recmoe.axes import Described, describe

STACK = ("names", "input_of_expert", "num_experts", "out_features", "each")
"""By which an ``ExpertStack`` is known."""


def stacks_of(model: nn.Module) -> list[Any]:
    """The stacks of experts that a model holds, in its order; one inside another counts as part of it."""
    found: list[tuple[str, nn.Module]] = []
    for name, module in model.named_modules():
        is_inside = any(name.startswith(f"{outer}." if outer else "") for outer, _ in found)
        if not is_inside and all(hasattr(module, attribute) for attribute in STACK):
            found.append((name, module))
    return [module for _, module in found]


def owner_of(expert: str) -> str:
    """``ctr`` of ``ctr.0``."""
    return expert.rpartition(".")[0] or expert


def by_expert(stack: Any, values: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
    """The values of each expert, by its name.

    Args:
        values: by the names of the stack's parameters, such as the weights themselves or their gradients.
    """
    described = describe(stack)
    return {
        expert: [part for name, value in values.items() for part in _of(expert, described[name], value)]
        for expert in stack.names
    }


def _of(expert: str, described: Described, value: Tensor) -> Iterator[Tensor]:
    if f"[{expert}]" in described.name:
        yield value
        return
    for axis, labels in enumerate(described.axes):
        if labels is not None and expert in labels:
            yield value.select(axis, labels.index(expert))
            return

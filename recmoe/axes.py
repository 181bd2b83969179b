"""What the indices of a weight stand for: every module says so of its own, so that weights of two models compare.

A module says it by two methods, where it has something to say::

    weight_axes()   of its weights, and of those of its parts, by their names below it: per axis the labels of the
                    indices; None where an index means nothing outside of the weight, such as a hidden unit
    part_names()    of its lists of parts: what each part belongs to, such as a task or an expert

What lies in a part that belongs to something belongs to it too. What no one names is an error: kept by its position,
the weights of one task would become those of another as soon as a task is added before it.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

Labels = tuple[Hashable, ...]
WeightAxes = Mapping[str, tuple[Labels | None, ...]]
PartNames = Mapping[str, Sequence[str]]

EXPERTS: Labels = ("the experts that a gate sees",)
"""In a gate's ``weight_axes``: its layer knows their names."""


def of_all_experts(size: int) -> Labels:
    """In a gate's ``weight_axes``: an axis whose indices mean something for just the experts that it sees, in order.

    Bits of a code that numbers the experts are such: with one expert more, every code may mean another one.
    """
    return tuple((EXPERTS, index) for index in range(size))


def name_experts(labels: Labels | None, names: Sequence[str]) -> Labels | None:
    """The labels of an axis of a gate, once the names of the experts that it sees are known."""
    if labels is EXPERTS:
        return tuple(names)
    if labels is None or labels != of_all_experts(len(labels)):
        return labels
    return tuple((tuple(names), index) for index in range(len(labels)))


class RowLabel(NamedTuple):
    """The label of an index that stands for an id, by its row in the table of a feature; rows of two models differ."""

    feature: str
    row: int


class Described(NamedTuple):
    """A weight, its name without positions, and what its indices stand for."""

    name: str
    axes: tuple[Labels | None, ...]


def describe(root: nn.Module, *, known: Mapping[str, Described] | None = None) -> dict[str, Described]:
    """The meaning of all that a module stores, by the names of its state.

    Args:
        known: what others know of some weights, by the same names.
    """
    found = dict(known or {})
    declared: dict[str, tuple[Labels | None, ...]] = {}
    for name, described in _walk(root, "", "", declared, is_owned=False, known=found):
        found.setdefault(name, described)
    return found


def _walk(
    module: nn.Module,
    path: str,
    logical: str,
    declared: dict[str, tuple[Labels | None, ...]],
    *,
    is_owned: bool,
    known: Mapping[str, Described],
) -> Iterator[tuple[str, Described]]:
    axes: WeightAxes = module.weight_axes() if hasattr(module, "weight_axes") else {}  # type: ignore[operator]
    for name, of_weight in axes.items():
        declared.setdefault(path + name, of_weight)
    names: PartNames = module.part_names() if hasattr(module, "part_names") else {}  # type: ignore[operator]
    is_library = type(module).__module__.startswith("torch.")
    for name, weight in _own_state(module):
        where = path + name
        if where in known:
            continue
        assert where in declared or is_owned or is_library, f"no one says what {where} belongs to; see recmoe.axes"
        yield where, Described(logical + name, declared.get(where, (None,) * weight.ndim))
    for name, part in module.named_children():
        below, logical_below = f"{path}{name}.", f"{logical}{name}."
        if not isinstance(part, nn.ModuleList):
            yield from _walk(part, below, logical_below, declared, is_owned=is_owned, known=known)
            continue
        members = names.get(name)
        assert members is not None or is_owned or not len(part), f"no one says what {below} belong to; see recmoe.axes"
        for index, member in enumerate(part):
            stands_for = logical_below + f"{index}." if members is None else f"{logical}{name}[{members[index]}]."
            is_named = is_owned or members is not None
            yield from _walk(member, f"{below}{index}.", stands_for, declared, is_owned=is_named, known=known)


def _own_state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What a module stores itself, without its parts."""
    yield from module.named_parameters(recurse=False)
    passing = module._non_persistent_buffers_set
    yield from ((name, buffer) for name, buffer in module.named_buffers(recurse=False) if name not in passing)

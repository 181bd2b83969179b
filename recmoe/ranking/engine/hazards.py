"""first_hazard(): the first operation of a computation that a CUDA graph cannot hold."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_COUNTED = (
    *("_local_scalar_dense", "item.", "is_nonzero", "equal.", "nonzero", "argwhere", "where.default"),
    *("masked_select", "bincount", "_unique", "unique_"),
)
"""Operations whose result, or its size, the host has to wait for."""


def first_hazard(compute: Callable[[], object]) -> str | None:
    """Compute, and say which operation the host would wait for, or copy for, if any."""
    watch = _Watch()
    with watch:
        compute()
    return watch.found


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: str | None = None

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        given = kwargs or {}
        result = func(*args, **given)
        if self.found is None:
            self.found = _hazard(str(func).removeprefix("aten."), args, given, result)
        return result


def _hazard(name: str, args: Sequence[Any], given: Mapping[str, Any], result: Any) -> str | None:
    tensors, made = _tensors((args, given)), _tensors(result)
    if name.startswith(_COUNTED):
        return f"{name} is waited for"
    if name.startswith(("index.", "index_put")) and any(one.dtype == torch.bool for one in _tensors(args[1])):
        return f"{name} selects rows that the host has to count"
    if name.startswith("repeat_interleave") and "Tensor" in name and given.get("output_size") is None:
        return f"{name} makes rows that the host has to count"
    if name.startswith("_grouped_mm") and tensors[0].dtype != torch.bfloat16:
        return f"{name} counts its rows on the host in {tensors[0].dtype}"
    if name.startswith("lift_fresh") and any(one.dim() or one.device.type != "cpu" for one in tensors):
        return "numbers of Python are copied"
    # A single number on the host is handed over with the kernel; whatever has an axis, or is moved, is copied.
    is_moved = name.startswith(("to.", "_to_copy"))
    places = {one.device.type for one in [*tensors, *made] if one.dim() or is_moved}
    return f"{name} copies between {' and '.join(sorted(places))}" if len(places) > 1 else None


def _tensors(values: Any) -> list[Tensor]:
    return [one for one in tree_leaves(values) if isinstance(one, Tensor)]

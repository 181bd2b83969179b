"""Allowance: what building a model may take in memory, so that a config cannot ask for more than its weights fill."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_TENSOR = 128
"""What a tensor counts as beside its numbers: the objects around it take memory, too."""
_TIMES = 8
"""How often what is stored may be made while a model is built: weights begin as drawn numbers, and some are copied."""
_FREE = 1_000_000
"""Numbers that any model may take."""
_FREE_COUNT = 10_000
"""A number that any config may hold."""


class TooLargeError(Exception):
    """A config asks for more than its weights fill; the message says what."""


class Allowance(TorchFunctionMode):
    """Inside, new tensors of this thread are counted before they are made; those on the meta device take nothing.

    Args:
        num_stored: numbers in the weights that the model is built for.
        num_tensors: of these weights.

    Raises:
        TooLargeError: the next tensor would be too much.
    """

    def __init__(self, *, num_stored: int, num_tensors: int) -> None:
        super().__init__()
        self._left = _FREE + _TIMES * (num_stored + _TENSOR * num_tensors)

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        named = dict(kwargs or {})
        if not any(isinstance(value, Tensor) for value in _flat((args, named))):
            self._left -= _TENSOR + _size(func, args, named)
            if self._left < 0:
                raise TooLargeError("it asks for more weights than its files hold")
        return func(*args, **named)


def _size(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Numbers of what a function would make."""
    if torch.device(kwargs.get("device") or "cpu").type == "meta":
        return 0
    asked = {name: value for name, value in kwargs.items() if name not in ("device", "generator", "pin_memory")}
    try:
        made = func(*args, **asked, device=torch.device("meta"))
    except (TypeError, RuntimeError):
        # Not a function that makes tensors, or one that fails in earnest, too.
        return 0
    return made.numel() if isinstance(made, Tensor) else 0


def check_counts(config: Mapping[str, Any], *, longest: int) -> None:
    """Compare the counts of a config with its weights: lists are made of them before any tensor is.

    A kind of another package (with a dot in its name) knows what its numbers mean; steps of training are no size.

    Args:
        config: a section, as JSON would hold it.
        longest: the longest side of a stored weight.

    Raises:
        TooLargeError: there is a larger number.
    """
    limit = max(_FREE_COUNT, longest)
    for key, number in _counts(config, ""):
        if number > limit:
            raise TooLargeError(f"{key} is {number:,}, and no weight in its files has a side above {longest:,}")


def _counts(value: Any, key: str) -> Iterator[tuple[str, int]]:
    if isinstance(value, Mapping):
        if "." in str(value.get("kind", "")):
            return
        for name, inner in value.items():
            if not name.endswith("_steps"):
                yield from _counts(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _counts(inner, key)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield key, value


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _flat(inner)
    else:
        yield value

"""Clipping: gradients of a part of the model that are too long are made shorter, all at once or part by part.

By the norm: Pascanu et al., ICML 2013, https://arxiv.org/abs/1211.5063, algorithm 1.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Discriminator, PositiveFloat, Tag
from torch import Tensor, nn

from recmoe.config import Config
from recmoe.embeddings.logical import divided_parameters, unwrap
from recmoe.model.inputs import InputLayer
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.tasks.tower import Tower
from recmoe.workers import sum_over_workers


class ClipByPart(Config):
    """Largest norms of the gradients of parts of the model, each by itself."""

    inputs: PositiveFloat | None = None
    """Of the linear part's weights of numbers, learned vectors of numbers, and what encodes histories."""
    gates: PositiveFloat | None = None
    """Of the gates of all levels together."""
    experts: PositiveFloat | None = None
    """Of their experts."""
    towers: PositiveFloat | None = None
    """Of the towers of all tasks."""
    others: PositiveFloat | None = 10.0
    """Of all that is left, and of parts without a norm of their own, together; null leaves it as it is."""


def _is_section(value: Any) -> str:
    return "parts" if isinstance(value, Mapping | ClipByPart) else "number"


ClipNorm = Annotated[
    Annotated[PositiveFloat, Tag("number")] | Annotated[ClipByPart, Tag("parts")], Discriminator(_is_section)
]


@dataclass(frozen=True)
class ClippedPart:
    """Parameters whose gradients are clipped together."""

    name: str
    max_norm: float
    parameters: Sequence[nn.Parameter]
    divided: Sequence[nn.Parameter] = ()
    """Those of which every worker has others, such as experts of its own."""


class Clipping:
    """Scales the gradient g of each part to  g · min(1, max_norm / |g|),  and keeps the norms for the curves.

    What it reads is the mean of the workers' gradients, as data parallel training leaves it in each of them, and of
    parameters that are divided among workers the squares of all: all clip alike, and as one process with all the rows
    would.

    Args:
        parts: without a parameter in common.
    """

    def __init__(self, parts: Sequence[ClippedPart] = ()) -> None:
        self.parts = parts
        self._norms: dict[str, Tensor] = {}

    def clip(self) -> None:
        """Clip the gradients of the last backward; collective where parameters are divided."""
        for part in self.parts:
            parameters = [p for p in (*part.parameters, *part.divided) if p.grad is not None]
            norm = _norm(part.parameters)
            if part.divided:
                norm = (norm.square() + sum_over_workers(_norm(part.divided).square())).sqrt()
            self._norms[part.name] = norm
            # A GPU would have to be waited for; a CPU knows the norm, and seldom has to multiply anything.
            if norm.is_cuda or norm > part.max_norm:
                nn.utils.clip_grads_with_norm_(parameters, part.max_norm, norm)

    def curves(self) -> Mapping[str, float]:
        """The norms of the last step, before they were clipped."""
        return {f"train/gradient_norm/{name}": float(norm) for name, norm in self._norms.items()}


def _norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Of the gradients of all."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def make_clipping(
    clip_norm: float | ClipByPart | None, *, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Clipping:
    """What ``training.clip_norm`` asks for; a part that the model does not have is passed over.

    Args:
        model: in whatever wraps it.
        optimizer: of the dense part. Tables are not clipped: their gradients are applied during the backward, row by
            row, with rates of their own.
    """
    if clip_norm is None:
        return Clipping()
    owned = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    apart = {part for part, _ in divided_parameters(model).values()}
    divided = {id(parameter) for name, parameter in unwrap(model).named_parameters() if name in apart}

    def part_of_all(name: str, max_norm: float, members: Sequence[nn.Parameter]) -> ClippedPart:
        return ClippedPart(
            name,
            max_norm,
            [p for p in members if id(p) not in divided],
            [p for p in members if id(p) in divided],
        )

    if not isinstance(clip_norm, ClipByPart):
        return Clipping([part_of_all("all", clip_norm, owned)])
    norms: dict[str, float | None] = clip_norm.model_dump()
    part_of = {id(parameter): part for part, parameter in _by_part(unwrap(model)) if norms[part] is not None}
    parts: dict[str, list[nn.Parameter]] = {}
    for parameter in owned:
        parts.setdefault(part_of.get(id(parameter), "others"), []).append(parameter)
    clipped = ((part, norms[part], parts[part]) for part in norms if part in parts)
    return Clipping([part_of_all(part, norm, found) for part, norm, found in clipped if norm is not None])


def _by_part(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that belong to a part."""
    for module in model.modules():
        if isinstance(module, InputLayer):
            yield from (("inputs", parameter) for parameter in module.parameters())
        elif isinstance(module, Tower):
            yield from (("towers", parameter) for parameter in module.parameters())
        elif isinstance(module, ExpertLayer):
            yield from (("gates", parameter) for parameter in module.gates.parameters())
            yield from (("experts", parameter) for parameter in module.experts.parameters())

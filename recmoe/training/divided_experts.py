"""Experts over workers: the experts of every layer divided among the workers of a job, and whole again for a while."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, cast

import torch
from torch import distributed as dist
from torch import nn

from recmoe.embeddings.logical import dense_state, gather, part_here, unwrap
from recmoe.errors import ConfigError
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.experts.divided import DividedExperts, shares_of
from recmoe.moe.experts.mixed import MixedExperts
from recmoe.moe.experts.stack import Divisible, ExpertStack
from recmoe.workers import num_workers

ExpertPlacement = Literal["replicated", "over_workers"]


def divide_experts(model: nn.Module, placement: ExpertPlacement) -> None:
    """Leave every worker its own experts of each layer of a model, which is alike in all of them; in place.

    Alone, a worker keeps all.

    Raises:
        ConfigError: in every worker, for a model whose experts cannot be divided, and for fewer experts than workers.
    """
    if placement == "replicated":
        return
    layers = divisible_layers(model, num_workers=num_workers())
    if num_workers() == 1:
        return
    for layer in layers:
        experts = cast(ExpertStack, layer.experts)
        layer.experts = DividedExperts(experts, rank=dist.get_rank(), num_workers=num_workers())


def divisible_layers(model: nn.Module, *, num_workers: int) -> list[ExpertLayer]:
    """The layers whose experts are divided among so many workers.

    Raises:
        ConfigError: there are none, or the experts of one cannot be divided.
    """
    layers = [module for module in unwrap(model).modules() if isinstance(module, ExpertLayer)]
    if not layers:
        raise ConfigError(
            "training.experts: over_workers divides the experts of mixtures among workers, and this model has none; "
            "drop it, or choose another model.architecture, such as {kind: mmoe}"
        )
    assert len({id(layer.experts) for layer in layers}) == len(layers), "every layer has experts of its own"
    for layer in layers:
        _check(layer, num_workers)
    return layers


@contextmanager
def whole_experts(model: nn.Module) -> Iterator[None]:
    """Inside, every worker has all experts and nothing travels; collective on the way in, nothing to do without
    divided ones.

    What is changed of them inside, alike in all workers, goes on.
    """
    divided = {
        name: module
        for name, module in unwrap(model).named_modules()
        if isinstance(module, ExpertLayer) and isinstance(module.experts, DividedExperts)
    }
    if not divided:
        yield
        return
    experts = {name: cast(DividedExperts, layer.experts) for name, layer in divided.items()}
    state = dense_state(model)
    for name, of_layer in experts.items():
        for weight, parameter in of_layer.whole.named_parameters():
            parameter.data = gather(state[f"{name}.experts.{weight}"])
        of_layer.whole.to(next(of_layer.own.parameters()).device)
    try:
        for name, layer in divided.items():
            layer.experts = experts[name].whole
        yield
    finally:
        for name, layer in divided.items():
            layer.experts = experts[name]
            _take_back(experts[name])


@torch.no_grad()
def _take_back(experts: DividedExperts) -> None:
    """This worker's part of the whole stack, which is emptied."""
    parts, whole = dict(experts.named_parameters()), dict(experts.whole.named_parameters())
    for name, divided in experts.divided().items():
        if divided.here is not None:
            part = parts[divided.here]
            part.copy_(part_here(whole[name], divided))
    experts.let_go()


def travel_curves(model: nn.Module, *, train_s: float) -> Mapping[str, float]:
    """What the rows of this worker have cost that travelled to experts of others since the last call.

    ``travel_share``: of the time of the steps, the wait for other workers included; ``rows_sent``: to other workers, a
    row once for every expert, and where all experts compute all rows once for every worker.

    Args:
        train_s: seconds of the steps.
    """
    taken = [module.travel.take() for module in unwrap(model).modules() if isinstance(module, DividedExperts)]
    if not taken or train_s <= 0:
        return {}
    return {
        "train/experts/travel_share": sum(seconds for seconds, _ in taken) / train_s,
        "train/experts/rows_sent": float(sum(num_rows for _, num_rows in taken)),
    }


def _check(layer: ExpertLayer, num_workers: int) -> None:
    """ConfigError for a layer whose experts cannot be divided."""
    assert layer.mixes == "outputs", "the config refuses to divide experts that are merged"
    stack = layer.experts
    stacks = list(stack.stacks) if isinstance(stack, MixedExperts) else [stack]
    fixed = [type(one).__name__ for one in stacks if not isinstance(one, Divisible)]
    if fixed:
        raise ConfigError(
            f"training.experts: over_workers cannot divide {' and '.join(fixed)}, which do not say how their experts "
            "are taken apart; give them a method part (see Divisible), or drop training.experts"
        )
    num_experts = len(shares_of(cast(ExpertStack, stack), 1)[0])
    if num_experts < num_workers:
        raise ConfigError(
            f"training.experts: over_workers gives every worker an expert of each layer at least, and level "
            f"{layer.level} has {num_experts} with weights for {num_workers} workers; have more experts or fewer "
            "workers, or drop training.experts"
        )

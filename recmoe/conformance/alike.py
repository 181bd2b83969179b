"""Experts that begin alike stay alike: every gradient is the same for them."""

# E experts

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch

from recmoe.conformance.outcome import NotApplicable, require
from recmoe.conformance.probes import model_of
from recmoe.conformance.stacks import by_expert, stacks_of
from recmoe.conformance.subject import Subject


def check_experts_differ(subject: Subject) -> str:
    """No two experts of a level begin with the same weights, and no weights of an expert are all one number."""
    return check_stack_differs(stacks_of(model_of(subject.config)))


def check_stack_differs(stacks: Sequence[Any]) -> str:
    """The same of some stacks, level by level."""
    num_experts = 0
    for level, stack in enumerate(stacks):
        weights = {
            expert: torch.cat([part.detach().flatten() for part in parts])
            for expert, parts in by_expert(stack, dict(stack.named_parameters())).items()
            if parts
        }
        for expert, values in weights.items():
            require(
                bool(values.min() < values.max()), f"all weights of {expert} on level {level} begin as {values[0]:.3g}"
            )
        for (one, a), (other, b) in combinations(weights.items(), 2):
            require(not torch.equal(a, b), f"{one} and {other} on level {level} begin with the same weights")
        num_experts += len(weights)
    if not num_experts:
        raise NotApplicable("no expert has weights")
    return f"{num_experts} experts on {len(stacks)} levels begin with weights of their own"

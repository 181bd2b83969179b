"""Which task's loss moves which experts, and which experts the gates above them read: as declared."""

# B rows, G gates, E experts, Z logits

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from recmoe.architectures.seam import LevelFlow
from recmoe.conformance.outcome import NotApplicable, require
from recmoe.conformance.probes import TASKS, inputs_of, model_of, parts, rows
from recmoe.conformance.stacks import by_expert, owner_of, stacks_of
from recmoe.conformance.subject import Subject

NUM_ROWS = 200


def check_flow(subject: Subject) -> str:
    """What a loss moves, and what a gate reads, is what the kind declares."""
    declared = subject.config.flow(TASKS)
    if declared is None:
        raise NotApplicable("it declares no flow; override flow() to have it checked")
    stacks = stacks_of(model_of(subject.config))
    require(len(stacks) == len(declared), f"it declares {len(declared)} levels of experts and has {len(stacks)}")
    for level, (wanted, found) in enumerate(zip(declared, _observed(subject.config), strict=True)):
        there = {owner_of(expert) for expert in stacks[level].names}
        _compare(f"of level {level}, the loss of", "moves", wanted.owners_by_task, found.owners_by_task, there)
        _compare(
            f"of level {level}, the gate above of",
            "reads",
            wanted.owners_by_gate_above,
            found.owners_by_gate_above,
            there,
        )
    return f"losses move, and gates read, the experts that it declares, on {len(declared)} levels"


def _compare(
    where: str,
    verb: str,
    declared: Mapping[str, Collection[str]],
    found: Mapping[str, Collection[str]],
    there: set[str],
) -> None:
    for name in sorted({*declared, *found}):
        wanted, seen = set(declared.get(name, ())) & there, set(found.get(name, ()))
        require(
            wanted == seen,
            f"{where} {name} {verb} the experts of {_listed(seen)}; declared are those of {_listed(wanted)}",
        )


def _observed(config: Any) -> Sequence[LevelFlow]:
    """What gradients say, level by level."""
    model = model_of(config)
    stacks = stacks_of(model)
    outputs = model(inputs_of(config, rows(NUM_ROWS)))
    tasks = parts(config).tasks
    losses = {task: outputs.logits_BZ[:, tasks.columns(task)].sum() for task in TASKS}
    draws = torch.Generator().manual_seed(3)
    flows = []
    for level, stack in enumerate(stacks):
        above = outputs.routing[level + 1] if level + 1 < len(outputs.routing) else None
        # The shares of a gate sum to one: only an uneven sum of them says what they depend on.
        shares = {} if above is None else dict(zip(above.gates, above.weights_BGE.unbind(1), strict=True))
        choices = {gate: (p_BE * torch.rand(p_BE.shape, generator=draws)).sum() for gate, p_BE in shares.items()}
        flows.append(
            LevelFlow(
                owners_by_task={task: _owners_moved(stack, loss) for task, loss in losses.items()},
                owners_by_gate_above={gate: _owners_moved(stack, choice) for gate, choice in choices.items()},
            )
        )
    return flows


def _owners_moved(stack: Any, value: Tensor) -> set[str]:
    """Owners of the experts on whose weights a value depends."""
    weights = dict(stack.named_parameters())
    gradients: Sequence[Tensor | None] = (
        torch.autograd.grad(value, list(weights.values()), retain_graph=True, allow_unused=True)
        if value.requires_grad
        else [None] * len(weights)
    )
    found = {name: gradient for name, gradient in zip(weights, gradients, strict=True) if gradient is not None}
    return {
        owner_of(expert)
        for expert, of_expert in by_expert(stack, found).items()
        if any(bool(part.any()) for part in of_expert)
    }


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "no one"

"""Architectures whose tasks read copies of what they share, against a naive loop over the tasks."""

from collections.abc import Sequence
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from recmoe.architectures import ArchitectureConfig
from recmoe.architectures.mmoe import MMoE, MMoEConfig
from recmoe.architectures.ple import PLE, PLEConfig
from recmoe.architectures.shared_bottom import SharedBottomConfig
from recmoe.architectures.towers import TowerKind
from recmoe.balancing.fork import Fork, weigh

TASKS = ("ctr", "cvr", "watch")
SMALL: dict[str, dict[str, Any]] = {
    "shared_bottom": {"hidden": (5,)},
    "omoe": {"num_experts": 3, "expert_hidden": (5,)},
    "mmoe": {"num_experts": 3, "expert_hidden": (5,)},
    "cgc": {"num_task_experts": 1, "num_shared_experts": 2, "expert_hidden": (5,)},
    "ple": {"num_task_experts": 1, "num_shared_experts": 2, "expert_hidden": (5,)},
    "cross_stitch": {"hidden": (6, 5)},
    "adatt": {"num_task_experts": 2, "num_shared_experts": 1, "expert_hidden": (5,)},
    "hierarchical": {"num_groups": 2, "expert_hidden": (5,)},
    "deepseek_moe": {
        "num_shared_experts": 1,
        "num_routed_experts": 4,
        "gate": {"kind": "top_k", "k": 2},
        "expert_hidden": (5,),
    },
    "smes": {"num_experts": 5, "num_joint": 1, "num_private": 1, "expert_hidden": (5,)},
    "moefied": {"hidden": (8, 5), "num_experts": 4, "k": 2},
}
KINDS = [cls for cls in get_args(get_args(ArchitectureConfig)[0]) if cls.can_fork and issubclass(cls, TowerKind)]
SPARSE = {"gate": {"kind": "top_k", "k": 2}}
CASES = [(kind, {}) for kind in KINDS] + [(kind, SPARSE) for kind in KINDS if "gate" in kind.model_fields]


def rule(gram_PP: Tensor) -> Tensor:
    """Weights that no accident gives."""
    return torch.tensor([0.5, 2.0, 3.0], dtype=gram_PP.dtype) * gram_PP.diagonal()


class Recorder:
    """In place of a fork: every task reads the shared tensors themselves."""

    def __init__(self) -> None:
        self.shared: list[Tensor] = []

    def __call__(self, shared: Sequence[Tensor]) -> list[list[Tensor]]:
        self.shared = list(shared)
        return [list(shared)] * len(TASKS)


def built(kind: Any, fields: dict[str, Any]) -> tuple[nn.Module, nn.ModuleList, Tensor]:
    """An architecture, a head per task, and rows."""
    torch.manual_seed(0)
    config = kind.model_validate({**SMALL[kind().kind], **fields})
    architecture = config.build(in_features=4, task_names=TASKS)
    heads = nn.ModuleList(nn.Linear(5, 1) for _ in TASKS)
    return architecture, heads, torch.randn(12, 4).requires_grad_()


def losses(architecture: nn.Module, heads: nn.ModuleList, x_BD: Tensor) -> list[Tensor]:
    h, _ = architecture(x_BD)
    return [
        (head(h_BH) - task).square().mean() * (task + 1) for task, (head, h_BH) in enumerate(zip(heads, h, strict=True))
    ]


@pytest.mark.parametrize(("kind", "fields"), CASES, ids=lambda value: value().kind if isinstance(value, type) else "")
def test_gradients_equal_those_of_a_naive_loop_over_the_tasks(kind: Any, fields: dict[str, Any]) -> None:
    architecture, heads, x_BD = built(kind, fields)
    inputs = [x_BD, *architecture.parameters(), *heads.parameters()]
    recorder = Recorder()
    architecture.fork_shared(recorder)
    of_task = losses(architecture, heads, x_BD)
    gradients = [
        torch.autograd.grad(loss, recorder.shared, retain_graph=True, materialize_grads=True, allow_unused=True)
        for loss in of_task
    ]
    flat_TS = torch.stack([torch.cat([grad.flatten() for grad in of]) for of in gradients])
    weights_T = weigh(rule, flat_TS @ flat_TS.t())
    # What reaches an input around the shared tensors, as through a gate, is not the rule's business.
    changes = [
        sum(((weight - 1) * grad for weight, grad in zip(weights_T, of_tensor, strict=True)), torch.zeros(()))
        for of_tensor in zip(*gradients, strict=True)
    ]
    arguments: Any = {"retain_graph": True, "materialize_grads": True, "allow_unused": True}
    plain = torch.autograd.grad(sum(of_task, torch.zeros(())), inputs, **arguments)
    changed = torch.autograd.grad(recorder.shared, inputs, changes, **arguments)
    expected = [one + other for one, other in zip(plain, changed, strict=True)]

    architecture.fork_shared(Fork(num_tasks=3, rule=rule))
    found = torch.autograd.grad(sum(losses(architecture, heads, x_BD), torch.zeros(())), inputs, **arguments)

    torch.testing.assert_close(found, tuple(expected), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(found[0], plain[0], rtol=1e-2)


@pytest.mark.parametrize(("kind", "fields"), CASES, ids=lambda value: value().kind if isinstance(value, type) else "")
def test_without_a_rule_a_fork_changes_nothing(kind: Any, fields: dict[str, Any]) -> None:
    architecture, heads, x_BD = built(kind, fields)
    inputs = [x_BD, *architecture.parameters(), *heads.parameters()]
    plain_losses = losses(architecture, heads, x_BD)
    plain = torch.autograd.grad(sum(plain_losses, torch.zeros(())), inputs)

    architecture.fork_shared(Fork(num_tasks=3))
    forked_losses = losses(architecture, heads, x_BD)
    found = torch.autograd.grad(sum(forked_losses, torch.zeros(())), inputs)

    torch.testing.assert_close(forked_losses, plain_losses, rtol=0, atol=0)
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind().kind)
def test_prediction_does_not_know_of_a_fork(kind: Any) -> None:
    architecture, _, x_BD = built(kind, {})
    with torch.no_grad():
        plain, _ = architecture(x_BD)

        architecture.fork_shared(Fork(num_tasks=3, rule=rule))
        forked, _ = architecture(x_BD)

    torch.testing.assert_close(forked, plain, rtol=0, atol=0)


def test_what_the_tasks_of_a_shared_bottom_share_is_its_output() -> None:
    architecture, _, x_BD = built(SharedBottomConfig, {})
    recorder = Recorder()
    architecture.fork_shared(recorder)

    h, _ = architecture(x_BD)

    assert [tensor is h[0] for tensor in recorder.shared] == [True]


def test_what_the_gates_of_mmoe_share_is_all_experts() -> None:
    architecture, _, x_BD = built(MMoEConfig, {})
    assert isinstance(architecture, MMoE)
    recorder = Recorder()
    architecture.layer.fork = recorder

    architecture(x_BD)

    torch.testing.assert_close(recorder.shared, architecture.layer.experts([x_BD]))


def test_what_the_gates_of_ple_share_is_the_shared_experts_of_the_last_level() -> None:
    architecture, _, x_BD = built(PLEConfig, {})
    assert isinstance(architecture, PLE)
    first, last = architecture.levels
    recorder = Recorder()
    last.fork = recorder

    architecture(x_BD)

    streams, _ = first([x_BD])
    torch.testing.assert_close(recorder.shared, last.experts(streams)[3:])

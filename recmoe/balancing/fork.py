"""Fork: a copy of what tasks share for each of them, whose gradients become one by a rule.

One backward pass reaches the shared weights and the tables, whatever the rule: a fused table optimizer steps once, and
dense gradients are summed over workers as ever. Gradients at a shared representation in place of the weights':
Sener & Koltun, NeurIPS 2018, https://arxiv.org/abs/1810.04650, section 3.3.
"""

# T tasks, N shared tensors, S size of one of them, P tasks that take part

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recmoe.workers import mean_over_workers, num_workers

Rule = Callable[[Tensor], Tensor]
"""From gram_PP to weights_P, both float64 on the CPU; the diagonal is above zero, its mean 1."""


class Fork(nn.Module):
    """Hands each task a copy of the shared tensors, and merges what comes back::

        gradient = Σ_t w_t · gradient_t,    w = rule(M),    M[s, t] = ⟨gradient_s, gradient_t⟩

    The product is over all shared tensors and the rows of all workers: M alone is summed over them. Tasks that have no
    gradient in a step take no part in the rule.

    Args:
        num_tasks: T.
        rule: makes weights of a Gram matrix; without one the gradients are added up.
    """

    gram_TT: Tensor
    """M of the last backward pass; NaN before the first."""
    weights_T: Tensor
    """Likewise."""

    def __init__(self, *, num_tasks: int, rule: Rule | None = None) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        self.rule = rule
        self._listeners: list[Callable[[Tensor], None]] = []
        self.register_buffer("gram_TT", torch.full((num_tasks, num_tasks), torch.nan), persistent=False)
        self.register_buffer("weights_T", torch.full((num_tasks,), torch.nan), persistent=False)

    def listen(self, listener: Callable[[Tensor], None]) -> None:
        """Have something called with gram_TT in every backward pass, alike in every worker."""
        self._listeners.append(listener)

    def forward(self, shared: Sequence[Tensor]) -> list[list[Tensor]]:
        """The shared tensors once per task, as views: nothing is copied."""
        if not torch.is_grad_enabled():
            return [list(shared)] * self.num_tasks
        views = _Fork.apply(self, *shared)  # type: ignore[no-untyped-call]
        return [list(views[first : first + len(shared)]) for first in range(0, len(views), len(shared))]

    def merge(self, grads: Sequence[Sequence[Tensor | None]]) -> list[Tensor | None]:
        """The gradient of each shared tensor; what a backward pass calls.

        Args:
            grads: by task, one per shared tensor, or None where the task does not read it.
        """
        by_tensor = list(zip(*grads, strict=True))
        gram_TT = torch.zeros_like(self.gram_TT)
        for grads_T in by_tensor:
            _add_products(gram_TT, grads_T)
        # A worker's loss is a mean over its own rows, so its gradients are too large by the number of workers.
        gram_TT = mean_over_workers(gram_TT) / num_workers()
        self.gram_TT.copy_(gram_TT)
        for listener in self._listeners:
            listener(gram_TT)
        self.weights_T.copy_(torch.ones_like(self.weights_T) if self.rule is None else weigh(self.rule, gram_TT))
        return [_weighted_sum(self.weights_T, grads_T) for grads_T in by_tensor]

    def curves(self, names: Sequence[str]) -> Mapping[str, float]:
        """Of the last backward pass: the cosine of the gradients of each pair of tasks, and each task's weight.

        Args:
            names: of the tasks. A pair of which one had no gradient is left out.
        """
        norm_T = self.gram_TT.diagonal().sqrt()
        cosines = (self.gram_TT / (norm_T[:, None] * norm_T)).tolist()
        values = {
            f"train/{first}-{second}/cosine": cosines[row][column]
            for row, first in enumerate(names)
            for column, second in enumerate(names)
            if row < column and cosines[row][column] == cosines[row][column]
        }
        weights = zip(names, self.weights_T.tolist(), strict=True)
        return values | {f"train/{name}/gradient_weight": weight for name, weight in weights if weight == weight}


def forked(shared: Tensor, num_tasks: int, fork: Fork | None) -> list[Tensor]:
    """A tensor once per task: itself, or with a fork a copy."""
    return [shared] * num_tasks if fork is None else [copy for (copy,) in fork([shared])]


def weigh(rule: Rule, gram_TT: Tensor) -> Tensor:
    """weights_T by a rule, which reads the Gram matrix of the tasks that have a gradient, scaled, in float64."""
    # Rules solve small problems step by step, which a GPU would be asked to do one number at a time.
    gram = gram_TT.detach().to("cpu", torch.float64)
    weights_T = torch.ones(len(gram), dtype=torch.float64)
    taking_part_P = (gram.diagonal() > 0).nonzero().flatten()
    # What is not finite is reported by the training loop, with the task's name.
    if len(taking_part_P) > 1 and bool(torch.isfinite(gram).all()):
        gram_PP = gram[taking_part_P][:, taking_part_P]
        # Gradients of a mean over many rows are tiny, and the rules have thresholds.
        weights_T[taking_part_P] = rule(gram_PP / gram_PP.diagonal().mean())
    return weights_T.to(gram_TT)


def _add_products(gram_TT: Tensor, grads_T: Sequence[Tensor | None]) -> None:
    present = [task for task, grad in enumerate(grads_T) if grad is not None]
    if not present:
        return
    # In float32 where gradients are in bfloat16: two nearly parallel ones would not be told apart.
    grad_PS = torch.stack([grad.flatten() for grad in grads_T if grad is not None]).to(gram_TT.dtype)
    gram_PP = grad_PS @ grad_PS.t()
    # Number by number: an index tensor would have to be copied to the device.
    for row, first in enumerate(present):
        for column, second in enumerate(present):
            gram_TT[first, second] += gram_PP[row, column]


def _weighted_sum(weights_T: Tensor, grads_T: Sequence[Tensor | None]) -> Tensor | None:
    total: Tensor | None = None
    for weight, grad in zip(weights_T.unbind(), grads_T, strict=True):
        if grad is not None:
            total = weight * grad if total is None else total.addcmul_(weight, grad)
    return total


class _Fork(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fork: Fork, *shared: Tensor) -> tuple[Tensor, ...]:
        ctx.fork = fork
        ctx.set_materialize_grads(False)
        return tuple(tensor.view_as(tensor) for _ in range(fork.num_tasks) for tensor in shared)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        num_shared = len(grads) // ctx.fork.num_tasks
        by_task = [grads[first : first + num_shared] for first in range(0, len(grads), num_shared)]
        return (None, *ctx.fork.merge(by_task))

"""Sparse optimizers: one update rule per kind, and the plain back end that applies it.

The fused kernels of torchrec follow the same rules; a parity test holds both together.
"""

# V rows of a table, D floats per row, N rows that a batch touched

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from recmoe.config import Config

SlotState = dict[str, Tensor]
"""State of one table, by slot name."""


class RowwiseAdagradConfig(Config):
    """Adagrad with one sum per row: s += mean(g²), w -= lr · g / (sqrt(s) + eps).

    Duchi et al., JMLR 2011, https://jmlr.org/papers/v12/duchi11a.html; one float of state per row.
    """

    kind: Literal["rowwise_adagrad"] = "rowwise_adagrad"
    lr: PositiveFloat = 0.02
    """Step size at the top of the schedule."""
    eps: PositiveFloat = 1e-8
    """Added to the root of the sum."""

    def slots(self, num_rows: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the state of one table."""
        del width
        return {"sum": (num_rows,)}

    def update(self, weight_VD: Tensor, rows_N: Tensor, grad_ND: Tensor, state: SlotState, *, lr: float) -> None:
        """Step the touched rows in place."""
        sum_N = state["sum"][rows_N] + grad_ND.square().mean(dim=1)
        state["sum"][rows_N] = sum_N
        weight_VD[rows_N] -= grad_ND * (lr / (sum_N.sqrt() + self.eps))[:, None]

    def fused(self) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        """Class and arguments by which torchrec picks the kernel."""
        from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

        return RowWiseAdagrad, {"lr": self.lr, "eps": self.eps}


class AdagradConfig(Config):
    """One sum per weight: s += g², w -= lr · g / (sqrt(s) + eps).

    Duchi et al., JMLR 2011, https://jmlr.org/papers/v12/duchi11a.html.
    """

    kind: Literal["adagrad"] = "adagrad"
    lr: PositiveFloat = 0.02
    """Step size at the top of the schedule."""
    eps: PositiveFloat = 1e-8
    """Added to the root of the sum."""

    def slots(self, num_rows: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the state of one table."""
        return {"sum": (num_rows, width)}

    def update(self, weight_VD: Tensor, rows_N: Tensor, grad_ND: Tensor, state: SlotState, *, lr: float) -> None:
        """Step the touched rows in place."""
        sum_ND = state["sum"][rows_N] + grad_ND.square()
        state["sum"][rows_N] = sum_ND
        weight_VD[rows_N] -= lr * grad_ND / (sum_ND.sqrt() + self.eps)

    def fused(self) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        """Class and arguments by which torchrec picks the kernel."""
        return torch.optim.Adagrad, {"lr": self.lr, "eps": self.eps}


class SGDConfig(Config):
    """w -= lr · g, without state."""

    kind: Literal["sgd"] = "sgd"
    lr: PositiveFloat = 0.1
    """Step size at the top of the schedule."""

    def slots(self, num_rows: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the state of one table: none."""
        del num_rows, width
        return {}

    def update(self, weight_VD: Tensor, rows_N: Tensor, grad_ND: Tensor, state: SlotState, *, lr: float) -> None:
        """Step the touched rows in place."""
        del state
        weight_VD[rows_N] -= lr * grad_ND

    def fused(self) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        """Class and arguments by which torchrec picks the kernel."""
        return torch.optim.SGD, {"lr": self.lr}


class AdamConfig(Config):
    """Adam on the touched rows, with the bias correction of the global step.

    m = b1·m + (1-b1)·g, v = b2·v + (1-b2)·g², w -= lr · m/(1-b1^t) / (sqrt(v/(1-b2^t)) + eps).
    Kingma and Ba, ICLR 2015, https://arxiv.org/abs/1412.6980, algorithm 1. torchrec has no CPU kernel for it.
    """

    kind: Literal["adam"] = "adam"
    lr: PositiveFloat = 1e-3
    """Step size at the top of the schedule."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the first and the second moment."""
    eps: PositiveFloat = 1e-8
    """Added to the root of the second moment."""

    def slots(self, num_rows: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the state of one table."""
        return {"exp_avg": (num_rows, width), "exp_avg_sq": (num_rows, width), "step": (1,)}

    def update(self, weight_VD: Tensor, rows_N: Tensor, grad_ND: Tensor, state: SlotState, *, lr: float) -> None:
        """Step the touched rows in place."""
        first, second = self.betas
        state["step"] += 1
        step = float(state["step"])
        mean_ND = first * state["exp_avg"][rows_N] + (1 - first) * grad_ND
        square_ND = second * state["exp_avg_sq"][rows_N] + (1 - second) * grad_ND.square()
        state["exp_avg"][rows_N] = mean_ND
        state["exp_avg_sq"][rows_N] = square_ND
        root_ND = (square_ND / (1 - second**step)).sqrt() + self.eps
        weight_VD[rows_N] -= lr * (mean_ND / (1 - first**step)) / root_ND

    def fused(self) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        """Class and arguments by which torchrec picks the kernel."""
        return torch.optim.Adam, {"lr": self.lr, "betas": self.betas, "eps": self.eps}


SparseOptimizerConfig = Annotated[
    RowwiseAdagradConfig | AdagradConfig | SGDConfig | AdamConfig, Field(discriminator="kind")
]


class SparseOptimizer:
    """Applies a rule to the rows that a backward touched; the rest of a table is never read.

    Works on sparse gradients, and on dense ones, where rows without any gradient count as not touched.

    Args:
        weights: table name → parameter [V, D].
        rule: what happens to a touched row.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], rule: SparseOptimizerConfig) -> None:
        self.rule = rule
        self.lr = rule.lr
        self._weights = dict(weights)
        self._state = {
            name: {
                slot: torch.zeros(shape, dtype=torch.float32, device=weight.device)
                for slot, shape in rule.slots(weight.shape[0], weight.shape[1]).items()
            }
            for name, weight in self._weights.items()
        }

    def set_lr(self, lr: float) -> None:
        """Step size from the next step on."""
        self.lr = lr

    def scale_lr(self, share: float) -> None:
        """Step size as a share of the configured one, such as a schedule's factor."""
        self.set_lr(self.rule.lr * share)

    @torch.no_grad()
    def step(self) -> None:
        """Apply and drop the gradients of the last backward."""
        for name, weight in self._weights.items():
            gradient = weight.grad
            if gradient is None:
                continue
            rows_N, grad_ND = _touched(gradient)
            if len(rows_N):
                self.rule.update(weight.data, rows_N, grad_ND, self._state[name], lr=self.lr)
        self.zero_grad()

    def zero_grad(self) -> None:
        """Drop gradients."""
        for weight in self._weights.values():
            weight.grad = None

    def state(self) -> dict[str, SlotState]:
        """State by table and slot; the tensors are the live ones."""
        return {name: dict(slots) for name, slots in self._state.items()}

    def after_load(self) -> None:
        """Called when the tensors of ``state()`` were filled from a checkpoint; nothing is cached here."""


def _touched(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Rows with a gradient, each once, and their gradients."""
    if gradient.is_sparse:
        gradient = gradient.coalesce()
        return gradient.indices()[0], gradient.values()
    rows_N = gradient.ne(0).any(dim=1).nonzero()[:, 0]
    return rows_N, gradient[rows_N]

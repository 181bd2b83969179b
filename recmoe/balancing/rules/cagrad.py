"""CAGrad: near the mean gradient, the direction that is best for the task it helps least.

Liu et al., NeurIPS 2021, https://arxiv.org/abs/2110.14048, algorithm 1. torchjd asks a modelling language for convex
programs, cvxpy, to solve it; scipy's solver, which the authors use, is enough for as many numbers as there are tasks.
"""

# P tasks

import math
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from recmoe.balancing.fork import Fork
from recmoe.balancing.needs import needs
from recmoe.config import Config

Floats = NDArray[np.float64]

TINY = 1e-12
"""Below it the square of a length is zero."""


class CAGradConfig(Config):
    """The direction near the mean gradient that is best for the task which gains least."""

    kind: Literal["cagrad"] = "cagrad"
    c: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.4
    """How far from the mean gradient the direction may be, in parts of its length; 0 is the mean."""

    def build(self, *, num_tasks: int) -> Fork | None:
        """The fork for so many tasks."""
        with needs("scipy", "cagrad"):
            import scipy.optimize  # noqa: F401  so that a missing one is found before the first step
        return Fork(num_tasks=num_tasks, rule=lambda gram_PP: cagrad(gram_PP, c=self.c))


def cagrad(gram_PP: Tensor, *, c: float) -> Tensor:
    """weights_P of the direction, times P / (1 + c): one for each of tasks that are not in conflict::

        d = g_0 + c · |g_0| / |g_w| · g_w,    w ≥ 0 of sum 1 with the least  ⟨g_w, g_0⟩ + c · |g_0| · |g_w|

    g_0 is the mean of the gradients, g_w their mean weighted by w.
    """
    from scipy.optimize import minimize

    num_tasks = len(gram_PP)
    gram: Floats = gram_PP.numpy()
    even: Floats = np.full(num_tasks, 1.0 / num_tasks)
    toward_mean = gram @ even
    radius = c * _length(even, gram)

    def value(w: Floats) -> tuple[float, Floats]:
        length = _length(w, gram)
        return float(w @ toward_mean) + radius * length, toward_mean + radius * (gram @ w) / length

    found = minimize(
        value,
        even,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * num_tasks,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": np.ones_like},
        options={"ftol": TINY, "maxiter": 200},
    )
    weights_P = torch.from_numpy(even + radius / _length(found.x, gram) * found.x)
    return weights_P * num_tasks / (1.0 + c)


def _length(w: Floats, gram: Floats) -> float:
    """Of the gradients' sum weighted by w."""
    return math.sqrt(max(float(w @ gram @ w), TINY))

"""What planted logs are drawn from: effects of values, pairs that fit, outcomes at a rate, things that live and die."""

# N rows, V values, T tasks, K latent width

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Effect:
    """Something that outcomes depend on: a standard normal per value and task, partly common to all tasks.

    Effects have correlation ``shared`` between any two tasks.
    """

    values_N: Ints
    """Which value each row has."""
    effect_VT: Floats

    @classmethod
    def draw(cls, values_N: Ints, num_tasks: int, rng: np.random.Generator, *, shared: float) -> "Effect":
        """Draw the effects of all values."""
        num_values = int(values_N.max()) + 1
        common_V1, own_VT = rng.normal(size=(num_values, 1)), rng.normal(size=(num_values, num_tasks))
        return cls(values_N, np.sqrt(shared) * common_V1 + np.sqrt(1 - shared) * own_VT)

    def rows(self, task: int) -> Floats:
        """The effect on a task in each row."""
        effect_N: Floats = self.effect_VT[self.values_N, task]
        return effect_N


def shares(weights: npt.NDArray[np.floating]) -> Floats:
    shares: Floats = weights / weights.sum()
    return shares


def zipf(num: int, num_values: int, exponent: float, rng: np.random.Generator) -> Ints:
    return rng.choice(num_values, num, p=shares((1.0 + np.arange(num_values)) ** -exponent))


def ranges(num: int) -> npt.NDArray[np.str_]:
    ends = [0, *(10**power for power in range(num))]
    return np.array([f"({low},{high}]" for low, high in pairwise(ends)])


def living(time_N: Ints, published_V: Floats, *, popularity_V: Floats, life_s: float, rng: np.random.Generator) -> Ints:
    """A video that is out already for each row, the newer the likelier; times in seconds, in order."""
    hour_N = time_N // 3600
    video_N = np.empty(time_N.size, dtype=np.int64)
    for hour in np.unique(hour_N):
        is_here_N = hour_N == hour
        age_V = hour * 3600.0 - published_V
        weight_V = np.where(age_V >= 0, popularity_V * np.exp(-np.maximum(age_V, 0) / life_s), 0.0)
        video_N[is_here_N] = rng.choice(published_V.size, int(is_here_N.sum()), p=shares(weight_V))
    return video_N


def affinity(left_N: Ints, right_N: Ints, rng: np.random.Generator, *, width: int = 4) -> Floats:
    """What a pair of values adds beyond both: a standard normal, by latent factors."""
    left_VK, right_VK = (rng.normal(size=(int(values_N.max()) + 1, width)) for values_N in (left_N, right_N))
    product_N: Floats = (left_VK[left_N] * right_VK[right_N]).sum(axis=1) / np.sqrt(width)
    return product_N


def draw(
    logit_N: Floats, rate: float, rng: np.random.Generator, *, cause: Floats | None, label_N: Ints | None, gain: float
) -> tuple[Ints, Floats]:
    """An outcome at a rate, and its probability; another outcome, if it happened, adds ``gain`` to its logit."""

    def probability(shift: float) -> Floats:
        without_N = _sigmoid(logit_N + shift)
        if cause is None:
            return without_N
        mixed_N: Floats = cause * _sigmoid(logit_N + shift + gain) + (1 - cause) * without_N
        return mixed_N

    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if probability(middle).mean() > rate else (middle, high)
    happened_N = np.zeros(logit_N.size) if label_N is None else label_N
    drawn_N = rng.random(logit_N.size) < _sigmoid(logit_N + low + gain * happened_N)
    return drawn_N.astype(np.int64), probability(low)


def _sigmoid(logit_N: Floats) -> Floats:
    sigmoid_N: Floats = 1 / (1 + np.exp(-logit_N))
    return sigmoid_N


def normal_cdf(z_N: Floats) -> Floats:
    cdf_N: Floats = torch.special.ndtr(torch.from_numpy(z_N)).numpy()
    return cdf_N

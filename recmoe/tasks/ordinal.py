"""Ordinal tasks: levels in an order, such as stars, of which the distance is not known."""

# B rows, J levels, K = J − 1 logits, one for each level but the lowest

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from recmoe.features.labels import LabelColumn, Levels
from recmoe.tasks.error import SQUARED_ERROR, ErrorMeasure
from recmoe.tasks.imitation import binary_divergence
from recmoe.tasks.level import Level
from recmoe.tasks.mixing import Mixing
from recmoe.tasks.numbers import Numbers
from recmoe.tasks.own_label import OwnLabelConfig
from recmoe.tasks.scale import NATURAL, Scale
from recmoe.tasks.start import LabelSums, TaskStart
from recmoe.tasks.task import Measure, TaskOutput, TaskRows

SMALLEST_GAP = 1e-3
"""Between the log-odds of neighbouring levels, at the start."""


class OrdinalTask:
    """Levels r_1 < … < r_J by one question for each but the lowest: is the label at least r_k?

    The log-odds of the answers fall from level to level, so that no probability of a level is negative::

        s_2 = z_1,   s_{k+1} = s_k − softplus(z_k),      P(y ≥ r_k) = σ(s_k)
        loss = −Σ_k  [y ≥ r_k] · log σ(s_k) + [y < r_k] · log(1 − σ(s_k))
        prediction = E[y] = r_1 + Σ_k (r_k − r_{k−1}) · σ(s_k)

    Cao, Mirjalili & Raschka, Pattern Recognition Letters 2020, https://arxiv.org/abs/1901.07884, equation 4 (CORAL);
    there the gaps between the levels are the same in all rows.

    Args:
        levels: r_1 … r_J, which increase; they are also the labels.
        names: of the levels.
    """

    loss_power: Literal[0, 1, 2] = 0
    scale: Scale = NATURAL
    level: Level | None = None
    mixing: Mixing | None = None
    error: ErrorMeasure = SQUARED_ERROR

    def __init__(self, *, levels: Sequence[float], names: Sequence[str]) -> None:
        # From the third on they are the way from one level to the next: a logit is named for all that it means.
        steps = [f"{low}-{high}" for low, high in itertools.pairwise(names[1:])]
        self.logits: tuple[str, ...] = (f"{names[0]}-{names[1]}", *steps)
        self._levels = tuple(levels)
        self._numbers = Numbers(levels)

    def losses(self, rows: TaskRows) -> Tensor:
        """Sum of the cross-entropies of the questions, in nats; see ``Task``."""
        log_odds_BK, answers_BK = self._log_odds(rows.logits_BK), self._answers(rows.labels_B)
        return functional.binary_cross_entropy_with_logits(log_odds_BK, answers_BK, reduction="none").sum(dim=1)

    def imitation(self, rows: TaskRows, teacher_BK: Tensor, temperature: float) -> Tensor:
        """Sum of the divergences of the questions; see ``Task``."""
        log_odds_BK, teacher_BK = self._log_odds(rows.logits_BK), self._log_odds(teacher_BK)
        return binary_divergence(log_odds_BK, teacher_BK, temperature).sum(dim=1)

    def predict(self, logits_BK: Tensor) -> Tensor:
        """Expected level per row; see ``Task``."""
        steps_K = self._numbers.beside(logits_BK).diff()
        return self._levels[0] + torch.sigmoid(self._log_odds(logits_BK)) @ steps_K

    def measures(self, logits_BK: Tensor, labels_B: Tensor) -> Mapping[str, Tensor]:
        """How probable the level was, and how near the most probable one is; see ``Task``."""
        reached_BK = torch.sigmoid(self._log_odds(logits_BK))
        edge_B1 = torch.ones_like(reached_BK[:, :1])
        level_BJ = -torch.cat([edge_B1, reached_BK, 0.0 * edge_B1], dim=1).diff(dim=1)
        place_B = self._answers(labels_B).sum(dim=1).long()
        distance_B = (level_BJ.argmax(dim=1) - place_B).abs()
        return {
            "logloss": -level_BJ.gather(1, place_B[:, None])[:, 0].clamp(min=1e-7).log(),
            "accuracy": (distance_B == 0).to(labels_B.dtype),
            "within_one": (distance_B <= 1).to(labels_B.dtype),
        }

    def statistics(self, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """The answers; see ``Task``."""
        answers_BK = self._answers(labels_B)
        return answers_BK, torch.ones_like(answers_BK)

    def starts(self, sums: LabelSums) -> list[TaskStart]:
        """Log-odds of the second level, then the inverse softplus of what they fall by; see ``Task``."""
        log_odds_K = torch.tensor(
            [sums.binary_start(place).logit for place in range(len(self.logits))], dtype=torch.float64
        )
        gaps_K = (-log_odds_K.diff()).clamp(min=SMALLEST_GAP).expm1().log()
        return [TaskStart(logit=float(logit)) for logit in torch.cat([log_odds_K[:1], gaps_K])]

    def _log_odds(self, logits_BK: Tensor) -> Tensor:
        """s_BK, which fall along a row."""
        return torch.cat([logits_BK[:, :1], -functional.softplus(logits_BK[:, 1:])], dim=1).cumsum(dim=1)

    def _answers(self, labels_B: Tensor) -> Tensor:
        """Whether the label is at least each level but the lowest."""
        return (labels_B[:, None] >= labels_B.new_tensor(self._levels[1:])).to(labels_B.dtype)


class OrdinalTaskConfig(OwnLabelConfig):
    """A level of several in an order, predicted as the expected level."""

    output: ClassVar[TaskOutput] = "regression"
    measures: ClassVar[Mapping[str, Measure]] = {
        "logloss": Measure("lowest", "Mean cross-entropy, in nats."),
        "accuracy": Measure("highest", "Share of rows whose most probable class is the label."),
        "within_one": Measure("highest", "Share of rows whose most probable level is the label or next to it."),
    }

    kind: Literal["ordinal"] = "ordinal"
    label: str
    """Column of the level; null rows are left out of loss and metrics."""
    levels: Levels = Levels.model_validate([0, 1])
    """All values that the column may hold, from the lowest to the highest, and the numbers that they stand for:
    ``[1, 2, 3, 4, 5]``, ``{poor: 0, fair: 1, good: 2}``. The prediction is the expected number."""

    def label_column(self) -> LabelColumn | None:
        """Its label, as the encoder reads it."""
        return LabelColumn(self.label, is_binary=False, levels=self.levels)

    def problems(self) -> Iterator[tuple[str, str]]:
        """What does not fit together, as (key path, message)."""
        if list(self.levels.numbers) != sorted(self.levels.numbers):
            yield "levels", f"levels must rise from the lowest to the highest, got {self.levels}"

    def build(self) -> OrdinalTask:
        """Link and loss of this task."""
        return OrdinalTask(levels=self.levels.numbers, names=[str(value) for value, _ in self.levels.pairs])

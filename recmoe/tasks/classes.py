"""Classes: which of K values a label has, each with a probability of its own: the next action, a kind of visit."""

# B rows, K classes, one logit each

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from recmoe.features.labels import LabelColumn, Levels
from recmoe.tasks.error import SQUARED_ERROR, ErrorMeasure
from recmoe.tasks.imitation import class_divergence
from recmoe.tasks.level import Level
from recmoe.tasks.mixing import CLASSES, Mixing
from recmoe.tasks.numbers import Numbers
from recmoe.tasks.own_label import OwnLabelConfig
from recmoe.tasks.scale import NATURAL, Scale
from recmoe.tasks.start import LabelSums, TaskStart
from recmoe.tasks.task import Measure, TaskOutput, TaskRows


class ClassesTask:
    """One of K classes by softmax: p_k = exp(z_k) / Σ_j exp(z_j), loss −log p_y.

    What is served is the expected value Σ_k p_k · v_k of the numbers v_k that the classes stand for.

    Args:
        names: of the K classes.
        numbers: v_k; different ones, which are also the labels.
    """

    loss_power: Literal[0, 1, 2] = 0
    scale: Scale = NATURAL
    level: Level | None = None
    mixing: Mixing | None = CLASSES
    error: ErrorMeasure = SQUARED_ERROR

    def __init__(self, *, names: Sequence[str], numbers: Sequence[float]) -> None:
        self.logits: tuple[str, ...] = tuple(names)
        self._numbers = Numbers(numbers)

    def losses(self, rows: TaskRows) -> Tensor:
        """Cross-entropy per row, in nats; see ``Task``."""
        return -(functional.log_softmax(rows.logits_BK, dim=1) * self._is_class(rows.labels_B)).sum(dim=1)

    def imitation(self, rows: TaskRows, teacher_BK: Tensor, temperature: float) -> Tensor:
        """Divergence of the probabilities of the classes; see ``Task``."""
        return class_divergence(rows.logits_BK, teacher_BK, temperature)

    def predict(self, logits_BK: Tensor) -> Tensor:
        """Expected value per row; see ``Task``."""
        return logits_BK.softmax(dim=1) @ self._numbers.beside(logits_BK)

    def measures(self, logits_BK: Tensor, labels_B: Tensor) -> Mapping[str, Tensor]:
        """How probable the label was, and whether it was the most probable class; see ``Task``."""
        is_class_BK = self._is_class(labels_B)
        return {
            "logloss": -(functional.log_softmax(logits_BK, dim=1) * is_class_BK).sum(dim=1),
            "accuracy": is_class_BK.gather(1, logits_BK.argmax(dim=1, keepdim=True))[:, 0],
        }

    def statistics(self, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """Whether a row is of each class; see ``Task``."""
        is_class_BK = self._is_class(labels_B)
        return is_class_BK, torch.ones_like(is_class_BK)

    def starts(self, sums: LabelSums) -> list[TaskStart]:
        """log((rows of the class + 1/2) / (rows + K/2)); see ``Task``."""
        num_rows = float(sums.num_rows_S[0]) + 0.5 * len(self.logits)
        return [TaskStart(logit=float(((count + 0.5) / num_rows).log())) for count in sums.sums_S]

    def _is_class(self, labels_B: Tensor) -> Tensor:
        # A row that does not count holds 0, which need not be a class: it is none of them.
        return (labels_B[:, None] == self._numbers.beside(labels_B)).to(labels_B.dtype)


class ClassesTaskConfig(OwnLabelConfig):
    """One of K values, predicted as the expected number that they stand for; with a probability of each inside."""

    output: ClassVar[TaskOutput] = "regression"
    measures: ClassVar[Mapping[str, Measure]] = {
        "logloss": Measure("lowest", "Mean cross-entropy, in nats."),
        "accuracy": Measure("highest", "Share of rows whose most probable class is the label."),
    }

    kind: Literal["classes"] = "classes"
    label: str
    """Column of the class; null rows are left out of loss and metrics."""
    classes: Levels = Levels.model_validate([0, 1])
    """All values that the column may hold, and the numbers that they stand for: ``[1, 2, 3]``, ``{view: 0, buy: 10}``.
    What is ranked by, and served, is the expected number."""

    def label_column(self) -> LabelColumn | None:
        """Its label, as the encoder reads it."""
        return LabelColumn(self.label, is_binary=False, levels=self.classes)

    def build(self) -> ClassesTask:
        """Link and loss of this task."""
        return ClassesTask(names=[str(value) for value, _ in self.classes.pairs], numbers=self.classes.numbers)

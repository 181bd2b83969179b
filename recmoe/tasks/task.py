"""Task: how the logits of a task become a loss, a prediction and measures of its own."""

# B rows, K logits that the task reads, S statistics of its label

from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple, Protocol

from pydantic import AfterValidator
from torch import Tensor

from recmoe.tasks.error import ErrorMeasure
from recmoe.tasks.level import Level
from recmoe.tasks.mixing import Experts, Mixing
from recmoe.tasks.scale import Scale
from recmoe.tasks.start import LabelSums, TaskStart

ALL_ROWS = "all"
"""Name of the space that holds every row."""

TaskOutput = Literal["binary", "regression", "quantile", "score"]
"""What a prediction is, which decides the metrics: a probability, an expected value, a quantile, or a score that only
orders the rows of a list."""

Best = Literal["highest", "lowest", "one", "level"]
"""Where a metric is best: as high or as low as can be, at 1, or at the level in its name (``coverage@0.9``)."""

Space = Annotated[str | None, AfterValidator(lambda space: None if space == ALL_ROWS else space)]
"""A binary task or its label column that must be 1, or None for all rows; in a config, ``all`` says the same."""

OutsideSpace = Literal["error", "ignore"]


LabelKind = Literal["binary", "regression"]
"""What a label is: 0 or 1, or a value."""


def has_binary_label(output: TaskOutput) -> bool:
    """Whether the label of a task is 0 or 1; else it is a value."""
    return output in ("binary", "score")


def label_kind(output: TaskOutput) -> LabelKind:
    """What the label of a task is."""
    return "binary" if has_binary_label(output) else "regression"


class Measure(NamedTuple):
    """A metric that a kind of task brings itself: the mean of a number that every row has."""

    best: Best
    meaning: str
    """For the glossary of a report."""


class TaskRows(NamedTuple):
    """What the loss of one task reads of a batch."""

    logits_BK: Tensor
    labels_B: Tensor
    """No NaN; 0 where the row does not count."""
    counts_B: Tensor
    """1 where the row counts for the task."""
    groups_B: Tensor | None
    """int64, the list of each row; None where the log has no lists."""
    experts: Experts | None = None
    """Of whose predictions ``logits_BK`` is the mixture; None where the model makes one prediction."""


class Task(Protocol):
    """Loss, prediction and measures of one task.

    A task with a tower of its own reads K logits of its own; a product reads one of each factor.
    """

    @property
    def logits(self) -> tuple[str, ...]:
        """Names of its own K logits, by which weights of two models are matched; "" is the task itself."""
        ...

    @property
    def loss_power(self) -> Literal[0, 1, 2]:
        """The loss is measured in the unit of the first logit to this power: 2 for squares, 1 for distances, 0 nats."""
        ...

    @property
    def scale(self) -> Scale:
        """Where its label is near to normal, and simple models learn it."""
        ...

    @property
    def level(self) -> Level | None:
        """How its predictions are made to sum to the labels; None where the loss sees to it, or they need not."""
        ...

    @property
    def mixing(self) -> Mixing | None:
        """How experts that each predict by themselves are joined; None where they have no likelihood to mix."""
        ...

    @property
    def error(self) -> ErrorMeasure:
        """What a prediction is judged by, where one number has to say how good it is."""
        ...

    def losses(self, rows: TaskRows) -> Tensor:
        """loss_B, in nats or in units of the label's scale; what rows that do not count get is not read."""
        ...

    def imitation(self, rows: TaskRows, teacher_BK: Tensor, temperature: float) -> Tensor:
        """loss_B of a student's logits against a teacher's, in the unit of ``losses``; 0 where they agree.

        Args:
            rows: those of the student; their labels are not read.
            teacher_BK: the logits of another model for the same task and rows.
            temperature: divides what is log-odds; above 1 differences between improbable outcomes count more.
        """
        ...

    def predict(self, logits_BK: Tensor) -> Tensor:
        """prediction_B, the one number that is served, in natural units."""
        ...

    def measures(self, logits_BK: Tensor, labels_B: Tensor) -> Mapping[str, Tensor]:
        """By the name of a measure, measure_B; the names, up to an @, are those of the config's ``measures``."""
        ...

    def statistics(self, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """values_BS and counts_BS: what is summed up over the training rows before the first step."""
        ...

    def starts(self, sums: LabelSums) -> list[TaskStart]:
        """One per own logit: what predicts the label best without looking at a row."""
        ...

"""Task: how the logits of one or several towers become a loss and a prediction."""

# B rows, M towers that the task reads

from typing import Annotated, Literal, Protocol

from pydantic import AfterValidator
from torch import Tensor

ALL_ROWS = "all"
"""Name of the space that holds every row."""

TaskOutput = Literal["binary", "regression"]
"""What a prediction is, which decides the metrics: a probability or a value."""

Space = Annotated[str | None, AfterValidator(lambda space: None if space == ALL_ROWS else space)]
"""A binary task or its label column that must be 1, or None for all rows; in a config, ``all`` says the same."""

OutsideSpace = Literal["error", "ignore"]


class Task(Protocol):
    """Link and loss of one task.

    A task with a tower of its own reads one logit (M = 1); a product reads one per factor.
    """

    def losses(self, logits_BM: Tensor, labels_B: Tensor) -> Tensor:
        """Loss per row, loss_B in nats or squared units; the labels hold no NaN."""
        ...

    def target(self, labels_B: Tensor) -> Tensor:
        """What the logit is fitted to: the label, on the scale of the error."""
        ...

    def predict(self, logits_BM: Tensor) -> Tensor:
        """prediction_B in natural units: a probability, or a value in the unit of the label."""
        ...

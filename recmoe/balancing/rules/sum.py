"""Sum: gradients are added up as without a fork, and their angles are measured."""

from typing import Literal

from recmoe.balancing.fork import Fork
from recmoe.config import Config


class SumConfig(Config):
    """Gradients of the tasks are added up; their cosines are logged."""

    kind: Literal["sum"] = "sum"

    def build(self, *, num_tasks: int) -> Fork | None:
        """The fork for so many tasks."""
        return Fork(num_tasks=num_tasks)

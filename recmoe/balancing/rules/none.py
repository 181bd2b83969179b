"""No balancing: the model as it is, without a fork."""

from typing import Literal

from recmoe.balancing.fork import Fork
from recmoe.config import Config


class NoBalancingConfig(Config):
    """Gradients of the tasks are added up where they meet, and nothing is measured."""

    kind: Literal["none"] = "none"

    def build(self, *, num_tasks: int) -> Fork | None:
        """No fork."""
        del num_tasks
        return None

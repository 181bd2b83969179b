"""DistillationConfig: how a student learns from a teacher besides its labels; Imitation: what it learns."""

# B rows, T tasks, N tasks that the teacher knows, Z logits

from collections.abc import Sequence

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from recmoe.config import Config
from recmoe.errors import TrainingError
from recmoe.features.batch import Batch
from recmoe.tasks.funnel import TaskSet


class DistillationConfig(Config):
    """What ``recmoe distil`` adds to the loss of every task that the teacher knows; other runs do not read it."""

    weight: NonNegativeFloat = 1.0
    """Factor of the distance to the teacher, next to that to the label, which has 1."""
    temperature: PositiveFloat = 1.0
    """Divides the log-odds of both; at 1 the student learns the teacher's probabilities, above it the differences
    between rare outcomes count more."""


class Imitation:
    """The distance of a student to its teacher, task by task.

    Args:
        tasks: of the student.
        names: N of them, which the teacher knows too.
        config: weight and temperature.
    """

    def __init__(self, tasks: TaskSet, names: Sequence[str], config: DistillationConfig) -> None:
        self.names = tuple(names)
        self._tasks = tasks
        self._places = [tasks.names.index(name) for name in names]
        self._config = config

    def losses(self, logits_BZ: Tensor, batch: Batch) -> Tensor:
        """losses_N, before their weight; see ``TaskSet.imitations``.

        Raises:
            TrainingError: the rows came without what the teacher says of them.
        """
        if batch.teacher_BZ is None:
            raise TrainingError(
                "what the teacher says of the training rows cannot be seen from this machine: it stands next to the "
                "encoded rows; have every worker see the --run-dir, and data.cache_dir if it is set, under one path"
            )
        return self._tasks.imitations(
            self.names,
            logits_BZ,
            batch.teacher_BZ,
            batch.labels_BL,
            batch.groups_B,
            temperature=self._config.temperature,
        )

    def added(self, losses_T: Tensor, imitations_N: Tensor) -> Tensor:
        """losses_T with the weighted distances, so that all that weighs tasks weighs both together."""
        # Not by an index tensor: that would have to be copied to the device for every batch.
        added = list(losses_T.unbind())
        for place, imitation in zip(self._places, imitations_N.unbind(), strict=True):
            added[place] = added[place] + self._config.weight * imitation
        return torch.stack(added)

"""Funnel: TaskSet joins the tasks of a model – which label leads to which, what a batch teaches each of them.

impression ──click──▶ clicked ──purchase──▶ bought         ctr    lives in all,    label click
                                                           cvr    lives in click,  label purchase
                                                           ctcvr  = ctr · cvr,     lives in all
"""

# B rows, L labels, T tasks, T' tasks with a tower, M towers that one task reads

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from recmoe.features.labels import LabelColumn
from recmoe.tasks import TaskConfig
from recmoe.tasks.product import ProductTaskConfig
from recmoe.tasks.spaces import label_columns, space_label, step_labels, steps_of, task_space
from recmoe.tasks.start import LabelSums, TaskStart
from recmoe.tasks.task import TaskOutput


class TaskSet:
    """The tasks of one model: what they learn from a batch, and what they predict.

    A row counts for a task where the task's space column is 1 and its label is known. A product's
    label is 1 where the label of every step is 1, and 0 as soon as one is 0, so that a row without a
    click counts as "no conversion" even where the log leaves its conversion empty.

    Args:
        tasks: the config's tasks by name; ``task_problems`` has found nothing in them.
    """

    names: tuple[str, ...]
    """T tasks, in the config's order: columns of labels_BT, weights_BT, losses_T and predictions_BT."""
    tower_names: tuple[str, ...]
    """T' tasks that have a tower, in the same order: columns of logits_BT'."""
    spaces: dict[str, str]
    """By task: ``all``, or what must be 1 as the config names it: a binary task or its label column."""
    kinds: dict[str, TaskOutput]
    """By task: whether it predicts a probability (binary) or a value (regression)."""
    weights: dict[str, float]
    """By task: the factor of its loss."""
    loss_towers: tuple[int, ...]
    """By task, in order: the tower whose unit its error is measured in; of a product, that of its first step."""
    label_columns: tuple[LabelColumn, ...]
    """L columns of labels_BL that ``targets`` reads, in order."""

    def __init__(self, tasks: Mapping[str, TaskConfig]) -> None:
        self.names = tuple(tasks)
        self.tower_names = tuple(name for name, task in tasks.items() if not isinstance(task, ProductTaskConfig))
        self.spaces = {name: task_space(tasks, name) for name in tasks}
        self.kinds = {name: task.output for name, task in tasks.items()}
        self.weights = {name: task.weight for name, task in tasks.items()}
        self.label_columns = label_columns(tasks)
        self._tasks = [task.build() for task in tasks.values()]
        index = {label.name: position for position, label in enumerate(self.label_columns)}
        towers = {name: position for position, name in enumerate(self.tower_names)}
        spaces = [space_label(tasks, name) for name in self.names]
        self._space_columns = [None if space is None else index[space] for space in spaces]
        self._label_columns = [[index[label] for label in step_labels(tasks, name)] for name in self.names]
        self._towers = [[towers[step] for step in steps_of(tasks, name)] for name in self.names]
        self._places = [self.names.index(name) for name in self.tower_names]
        self.loss_towers = tuple(of_task[0] for of_task in self._towers)

    def targets(self, labels_BL: Tensor) -> tuple[Tensor, Tensor]:
        """What each task learns from a batch.

        Args:
            labels_BL: in the order of ``label_columns``; NaN where a label is missing.

        Returns:
            labels_BT: float32; 0 where the weight is 0.
            weights_BT: float32; 1 where the row counts for the task, 0 outside its space or without its label.
        """
        labels, weights = [], []
        for columns, space in zip(self._label_columns, self._space_columns, strict=True):
            label_B = labels_BL[:, columns[-1]]
            for column in columns[:-1]:
                earlier_B = labels_BL[:, column]
                either_is_zero_B = (earlier_B == 0) | (label_B == 0)
                # NaN unless both are 1 or one is 0: what is not known to have failed is not known.
                label_B = torch.where(either_is_zero_B, torch.zeros_like(label_B), earlier_B * label_B)
            counts_B = ~torch.isnan(label_B)
            if space is not None:
                counts_B = counts_B & (labels_BL[:, space] == 1)
            labels.append(torch.where(counts_B, label_B, torch.zeros_like(label_B)))
            weights.append(counts_B)
        return torch.stack(labels, dim=1), torch.stack(weights, dim=1).to(labels_BL.dtype)

    def label_sums(self, labels_BL: Tensor) -> LabelSums:
        """Counts and sums of the labels of a batch, per tower; ``starts`` makes of them where training begins."""
        labels_BT, weights_BT = self.targets(labels_BL)
        targets_BT = torch.stack([self._tasks[place].target(labels_BT[:, place]) for place in self._places], dim=1)
        return LabelSums.of(targets_BT, weights_BT[:, self._places])

    def starts(self, sums: LabelSums) -> list[TaskStart]:
        """One per tower: what predicts its label best without looking at a row."""
        return [
            sums.value_start(tower) if self.kinds[name] == "regression" else sums.binary_start(tower)
            for tower, name in enumerate(self.tower_names)
        ]

    def on_scale(self, name: str, values_N: Tensor) -> Tensor:
        """Labels or predictions of a task on the scale of its error."""
        return self._tasks[self.names.index(name)].target(values_N)

    def losses(self, logits_BT: Tensor, labels_BT: Tensor, weights_BT: Tensor) -> Tensor:
        """losses_T: Σ over rows of weight · loss, divided by B.

        The divisor is the batch size, not the number of rows that count: so a row weighs the same
        whatever its neighbours are.

        Args:
            logits_BT: one column per tower.
            labels_BT: from ``targets``.
            weights_BT: from ``targets``.
        """
        losses_BT = torch.stack(
            [
                task.losses(self._logits_of(towers, logits_BT), labels_BT[:, position])
                for position, (task, towers) in enumerate(zip(self._tasks, self._towers, strict=True))
            ],
            dim=1,
        )
        return (weights_BT * losses_BT).sum(dim=0) / logits_BT.shape[0]

    def predict(self, logits_BT: Tensor) -> Tensor:
        """predictions_BT of all tasks from one logit per tower: probabilities, or values in the label's unit."""
        return torch.stack(
            [
                task.predict(self._logits_of(towers, logits_BT))
                for task, towers in zip(self._tasks, self._towers, strict=True)
            ],
            dim=1,
        )

    def _logits_of(self, towers: Sequence[int], logits_BT: Tensor) -> Tensor:
        # Slices, not an index tensor: that would have to be copied to the device for every batch.
        return torch.stack([logits_BT[:, tower] for tower in towers], dim=1)

"""Funnel: TaskSet joins the tasks of a model – which label leads to which, what a batch teaches each of them.

impression ──click──▶ clicked ──purchase──▶ bought         ctr    lives in all,    label click
                                                           cvr    lives in click,  label purchase
                                                           ctcvr  = ctr · cvr,     lives in all
"""

# B rows, L labels, T tasks, T' tasks with a tower, K logits of a task, Z logits of all towers, S statistics

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor

from recmoe.features.labels import LabelColumn
from recmoe.tasks import TaskConfig
from recmoe.tasks.error import ErrorMeasure
from recmoe.tasks.mixing import NO_MIXTURE, Mixing, Mixture
from recmoe.tasks.scale import Scale
from recmoe.tasks.spaces import available_columns, label_columns, rows_of, space_label, step_labels, steps_of
from recmoe.tasks.start import LabelSums, TaskStart
from recmoe.tasks.task import LabelKind, Task, TaskOutput, TaskRows


class TaskSet:
    """The tasks of one model: what they learn from a batch, and what they predict.

    A row counts for a task where the task's space column is 1, it is available, and its label is known. A product's
    label is 1 where the label of every step is 1, and 0 as soon as one is 0, so that a row without a
    click counts as "no conversion" even where the log leaves its conversion empty.

    The logits of all towers stand side by side: ``ctr`` of one logit and ``rating`` of two are logits_BZ with Z = 3::

        tower_names  ("ctr", "rating")          logit_names  ("ctr", "rating.1-2", "rating.2-3")

    Args:
        tasks: the config's tasks by name; ``task_problems`` has found nothing in them.
    """

    names: tuple[str, ...]
    """T tasks, in the config's order: columns of labels_BT, weights_BT, losses_T and predictions_BT."""
    tower_names: tuple[str, ...]
    """T' tasks that have a tower, in the same order."""
    logits: dict[str, tuple[str, ...]]
    """By task with a tower: the names of its K logits, of which one without a name of its own has that of the task."""
    logit_names: tuple[str, ...]
    """Those of all of them: Z columns of logits_BZ."""
    spaces: dict[str, str]
    """By task: ``all``, or what must be 1 as the config names it: a task or its label column, an availability."""
    kinds: dict[str, TaskOutput]
    """By task: what its prediction is: a probability, an expected value, a quantile or a score."""
    loss_kinds: dict[str, LabelKind]
    """By task: regression where the loss is a squared error, which decides how its noise weighs, else binary."""
    measure_names: dict[str, tuple[str, ...]]
    """By task: the metrics that it brings itself."""
    weights: dict[str, float]
    """By task: the factor of its loss."""
    label_columns: tuple[LabelColumn, ...]
    """L columns of labels_BL that ``targets`` reads, in order."""

    def __init__(self, tasks: Mapping[str, TaskConfig]) -> None:
        self.names = tuple(tasks)
        self.tower_names = tuple(name for name, task in tasks.items() if not task.factors)
        self.spaces = {name: rows_of(tasks, name) for name in tasks}
        self.kinds = {name: task.output for name, task in tasks.items()}
        self.weights = {name: task.weight for name, task in tasks.items()}
        self.label_columns = label_columns(tasks)
        self._tasks: dict[str, Task] = {name: task.build() for name, task in tasks.items()}
        self.logits = {
            name: tuple(f"{name}.{logit}" if logit else name for logit in self._tasks[name].logits)
            for name in self.tower_names
        }
        self.logit_names = tuple(chain.from_iterable(self.logits.values()))
        place = {logit: position for position, logit in enumerate(self.logit_names)}
        self._columns = {
            name: [place[logit] for step in steps_of(tasks, name) for logit in self.logits[step]] for name in self.names
        }
        self.loss_kinds = {
            name: "regression" if task.loss_power == 2 else "binary" for name, task in self._tasks.items()
        }
        of_no_rows = self.measures(torch.zeros(0, len(self.logit_names)), torch.zeros(0, len(self.names)))
        self.measure_names = {name: tuple(measures) for name, measures in of_no_rows.items()}
        index = {label.name: position for position, label in enumerate(self.label_columns)}
        self._label_columns = {name: [index[label] for label in step_labels(tasks, name)] for name in self.names}
        self._must_be_one: dict[str, list[int]] = {}
        for name in self.names:
            space = space_label(tasks, name)
            columns = [*([] if space is None else [space]), *available_columns(tasks, name)]
            self._must_be_one[name] = [index[column] for column in columns]

    def columns(self, name: str) -> list[int]:
        """Columns of logits_BZ that a task reads: its own, or those of the factors of a product."""
        return self._columns[name]

    def targets(self, labels_BL: Tensor) -> tuple[Tensor, Tensor]:
        """What each task learns from a batch.

        Args:
            labels_BL: in the order of ``label_columns``; NaN where a label is missing.

        Returns:
            labels_BT: float32; 0 where the weight is 0.
            weights_BT: float32; 1 where the row counts for the task, 0 where it is outside its space, not available or
                without its label.
        """
        labels, weights = [], []
        for name in self.names:
            *before, last = self._label_columns[name]
            label_B = labels_BL[:, last]
            for column in before:
                earlier_B = labels_BL[:, column]
                either_is_zero_B = (earlier_B == 0) | (label_B == 0)
                # NaN unless both are 1 or one is 0: what is not known to have failed is not known.
                label_B = torch.where(either_is_zero_B, torch.zeros_like(label_B), earlier_B * label_B)
            counts_B = ~torch.isnan(label_B) & self._in_space(name, labels_BL)
            labels.append(torch.where(counts_B, label_B, torch.zeros_like(label_B)))
            weights.append(counts_B)
        return torch.stack(labels, dim=1), torch.stack(weights, dim=1).to(labels_BL.dtype)

    def label_sums(self, labels_BL: Tensor) -> LabelSums:
        """Sums of what the tasks ask of the labels of a batch; ``starts`` makes of them where training begins."""
        labels_BT, weights_BT = self.targets(labels_BL)
        values, weights = [], []
        for name in self.tower_names:
            place = self.names.index(name)
            values_BS, counts_BS = self._tasks[name].statistics(labels_BT[:, place])
            values.append(values_BS)
            weights.append(weights_BT[:, place, None] * counts_BS)
        return LabelSums.of(torch.cat(values, dim=1), torch.cat(weights, dim=1))

    def starts(self, sums: LabelSums) -> list[TaskStart]:
        """One per logit: what predicts the labels best without looking at a row."""
        starts, first = [], 0
        for name in self.tower_names:
            size = self._tasks[name].statistics(torch.zeros(0))[0].shape[1]
            starts += self._tasks[name].starts(sums.take(first, size))
            first += size
        return starts

    @property
    def has_levels(self) -> bool:
        """Whether any task's predictions are to be made to sum to its labels."""
        return any(self._tasks[name].level is not None for name in self.tower_names)

    def level_shifts(self, of_task: Callable[[str], tuple[Tensor, Tensor]]) -> Tensor:
        """shifts_Z: what to add to the logits so that amounts are right on average; 0 for all others.

        Args:
            of_task: predictions and labels of the rows that count for a task, which the model has not learned from.
        """
        shifts_Z = torch.zeros(len(self.logit_names))
        for name in self.tower_names:
            level = self._tasks[name].level
            if level is not None:
                shifts_Z[self._columns[name][level.logit]] = level.shift(*of_task(name))
        return shifts_Z

    def loss_units(self, units_Z: Tensor) -> Tensor:
        """units_T: what a task's loss is measured in, so that losses of tasks can be added.

        A squared error of seconds would otherwise drown cross-entropies.

        Args:
            units_Z: of the logits, from ``starts``.
        """
        units = []
        for name in self.names:
            unit, power = units_Z[self._columns[name][0]], self._tasks[name].loss_power
            units.append(unit.square() if power == 2 else unit if power == 1 else torch.ones_like(unit))
        return torch.stack(units)

    def scale(self, name: str) -> Scale:
        """Where the labels of a task are near to normal."""
        return self._tasks[name].scale

    def error(self, name: str) -> ErrorMeasure:
        """What the predictions of a task are judged by."""
        return self._tasks[name].error

    def mixing(self, name: str) -> Mixing | None:
        """How experts that predict a task each by themselves are joined; None where they cannot be."""
        return self._tasks[name].mixing

    def row_losses(
        self,
        logits_BZ: Tensor,
        labels_BT: Tensor,
        weights_BT: Tensor,
        groups_B: Tensor | None = None,
        mixture: Mixture = NO_MIXTURE,
    ) -> Tensor:
        """losses_BT: weight · loss of every row.

        Args:
            logits_BZ: of all towers.
            labels_BT: from ``targets``.
            weights_BT: from ``targets``.
            groups_B: the list of each row, for tasks that compare the rows of a list.
            mixture: what ``logits_BZ`` are joined of, where experts predict each by themselves.
        """
        losses = []
        for name, labels_B, counts_B in zip(self.names, labels_BT.unbind(1), weights_BT.unbind(1), strict=True):
            rows = TaskRows(self._logits_of(name, logits_BZ), labels_B, counts_B, groups_B, mixture.get(name))
            losses.append(self._tasks[name].losses(rows))
        return weights_BT * torch.stack(losses, dim=1)

    def losses(self, losses_BT: Tensor) -> Tensor:
        """losses_T: Σ over rows of weight · loss, divided by B.

        The divisor is the batch size, not the number of rows that count: so a row weighs the same
        whatever its neighbours are.

        Args:
            losses_BT: from ``row_losses``.
        """
        return losses_BT.sum(dim=0) / losses_BT.shape[0]

    def imitations(
        self,
        names: Sequence[str],
        logits_BZ: Tensor,
        teacher_BZ: Tensor,
        labels_BL: Tensor,
        groups_B: Tensor | None = None,
        *,
        temperature: float = 1.0,
    ) -> Tensor:
        """Of some tasks: Σ over the rows of the task's space of how far a student is from its teacher, divided by B.

        A teacher knows no missing labels: what it says of a row counts wherever the row is in the space.

        Args:
            names: N tasks.
            logits_BZ: of the student.
            teacher_BZ: what another model gives for the same rows, in the same columns; NaN where it has no such task.
            labels_BL: they say which rows are in a space.
            temperature: see ``Task.imitation``.

        Returns:
            losses_N.
        """
        losses = []
        for name in names:
            counts_B = self._in_space(name, labels_BL).to(logits_BZ.dtype)
            rows = TaskRows(self._logits_of(name, logits_BZ), torch.zeros_like(counts_B), counts_B, groups_B)
            loss_B = self._tasks[name].imitation(rows, self._logits_of(name, teacher_BZ), temperature)
            losses.append((counts_B * loss_B).sum() / logits_BZ.shape[0])
        return torch.stack(losses)

    def divergences(self, one_BZ: Tensor, other_BZ: Tensor, groups_B: Tensor | None = None) -> Tensor:
        """Of every task with a tower: how far two predictions are from each other, in all rows, divided by B.

        The mean of how far each is from the other, which for probabilities is ½ · (KL(one ‖ other) + KL(other ‖ one)).
        Labels are not read, and a row counts whether or not it is in the task's space.

        Args:
            one_BZ: logits.
            other_BZ: of the same rows.
            groups_B: the list of each row, for tasks that compare the rows of a list.

        Returns:
            losses_T', in the units of ``losses``.
        """
        ones_B = torch.ones_like(one_BZ[:, 0])
        losses = []
        for name in self.tower_names:
            both = self._logits_of(name, one_BZ), self._logits_of(name, other_BZ)
            for student_BK, teacher_BK in (both, both[::-1]):
                rows = TaskRows(student_BK, torch.zeros_like(ones_B), ones_B, groups_B)
                losses.append(self._tasks[name].imitation(rows, teacher_BK, 1.0))
        return torch.stack(losses).view(len(self.tower_names), 2, -1).mean(dim=1).sum(dim=1) / one_BZ.shape[0]

    def predict(self, logits_BZ: Tensor) -> Tensor:
        """predictions_BT of all tasks: probabilities, values in the label's unit, scores."""
        return torch.stack([self._tasks[name].predict(self._logits_of(name, logits_BZ)) for name in self.names], dim=1)

    def measures(self, logits_BZ: Tensor, labels_BT: Tensor) -> dict[str, dict[str, Tensor]]:
        """By task and name, what the tasks measure themselves in every row; the metric is the mean of rows that count.

        Args:
            logits_BZ: of all towers.
            labels_BT: from ``targets``.
        """
        return {
            name: dict(self._tasks[name].measures(self._logits_of(name, logits_BZ), labels_BT[:, place]))
            for place, name in enumerate(self.names)
        }

    def _in_space(self, name: str, labels_BL: Tensor) -> Tensor:
        """Whether a row is in a task's space, and available to it, whatever its label."""
        is_in_B = torch.ones_like(labels_BL[:, 0], dtype=torch.bool)
        for column in self._must_be_one[name]:
            is_in_B = is_in_B & (labels_BL[:, column] == 1)
        return is_in_B

    def _logits_of(self, name: str, logits_BZ: Tensor) -> Tensor:
        # Columns, not an index tensor: that would have to be copied to the device for every batch.
        return torch.stack([logits_BZ[:, place] for place in self._columns[name]], dim=1)

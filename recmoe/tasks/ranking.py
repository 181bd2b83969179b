"""Ranking tasks: a score that only orders the rows of a list, learned from the others in it."""

# B rows, N positive rows, K = 1 logit

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from recmoe.features.batch import NO_GROUP
from recmoe.features.labels import LabelColumn, Positive
from recmoe.tasks.error import CROSS_ENTROPY, ErrorMeasure
from recmoe.tasks.imitation import list_divergence
from recmoe.tasks.level import Level
from recmoe.tasks.mixing import Mixing
from recmoe.tasks.own_label import OwnLabelConfig
from recmoe.tasks.scale import NATURAL, Scale
from recmoe.tasks.start import LabelSums, TaskStart
from recmoe.tasks.task import TaskOutput, TaskRows


class RankingTask:
    """A score z that puts the positive rows of a list above its others; what a batch holds of a list is the list.

    ``pairwise``: every positive row i against the other rows j of its list, RankNet, Burges et al., ICML 2005,
    https://doi.org/10.1145/1102351.1102363, equation 3::

        loss_i = mean over j of log(1 + exp(z_j − z_i))

    ``listwise``: every positive row against its whole list, ListNet's top one probability, Cao et al., ICML 2007,
    https://doi.org/10.1145/1273496.1273513, equation 3, with a target of 1 at the positive row::

        loss_i = −log(exp(z_i) / Σ_j exp(z_j))        j are row i and the rows of its list that are not positive

    A row that is not positive, or whose list holds nothing to compare it with, has a loss of 0.

    Args:
        loss: which of the two.
    """

    logits: tuple[str, ...] = ("",)
    loss_power: Literal[0, 1, 2] = 0
    scale: Scale = NATURAL
    level: Level | None = None
    mixing: Mixing | None = None
    error: ErrorMeasure = CROSS_ENTROPY

    def __init__(self, *, loss: Literal["pairwise", "listwise"]) -> None:
        self.loss = loss

    def losses(self, rows: TaskRows) -> Tensor:
        """Loss of each positive row, in nats; see ``Task``."""
        z_B, groups_B = rows.logits_BK[:, 0], rows.groups_B
        assert groups_B is not None, "experiments without lists are refused"
        can_lose_B = (rows.counts_B > 0) & (groups_B != NO_GROUP)
        positive_N = (can_lose_B & (rows.labels_B > 0.5)).nonzero()[:, 0]
        is_other_B = can_lose_B & (rows.labels_B <= 0.5)
        is_beside_NB = (groups_B[positive_N, None] == groups_B) & is_other_B
        above_NB = z_B - z_B[positive_N, None]
        if self.loss == "pairwise":
            pairs_NB = functional.softplus(above_NB) * is_beside_NB
            loss_N = pairs_NB.sum(dim=1) / is_beside_NB.sum(dim=1).clamp(min=1)
        else:
            rivals_NB = above_NB.masked_fill(~is_beside_NB, -torch.inf)
            loss_N = torch.logsumexp(functional.pad(rivals_NB, (1, 0)), dim=1)
        return torch.zeros_like(z_B).index_copy(0, positive_N, loss_N)

    def imitation(self, rows: TaskRows, teacher_BK: Tensor, temperature: float) -> Tensor:
        """Divergence of who stands first in a list, as the batch holds it; see ``Task``."""
        assert rows.groups_B is not None, "experiments without lists are refused"
        return list_divergence(
            rows.logits_BK[:, 0],
            teacher_BK[:, 0],
            counts_B=rows.counts_B,
            groups_B=rows.groups_B,
            temperature=temperature,
        )

    def predict(self, logits_BK: Tensor) -> Tensor:
        """The score; see ``Task``."""
        return logits_BK[:, 0]

    def measures(self, logits_BK: Tensor, labels_B: Tensor) -> Mapping[str, Tensor]:
        """None: metrics over lists are general; see ``Task``."""
        del logits_BK, labels_B
        return {}

    def statistics(self, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """None; see ``Task``."""
        return labels_B[:, None][:, :0], labels_B[:, None][:, :0]

    def starts(self, sums: LabelSums) -> list[TaskStart]:
        """0: only differences count; see ``Task``."""
        del sums
        return [TaskStart()]


class RankingTaskConfig(OwnLabelConfig):
    """A 0/1 label that orders the rows of a list (``inputs.group``); the score is no probability.

    A batch holds neighbours of the log only where ``data.shuffle_block`` keeps them together.
    """

    output: ClassVar[TaskOutput] = "score"
    needs_groups: ClassVar[bool] = True

    kind: Literal["ranking"] = "ranking"
    label: str
    """Column that holds 0, 1 or null, or what ``positive`` reads; null rows are left out of loss and metrics."""
    positive: Positive | None = None
    """Which values count as 1, as in a binary task."""
    loss: Literal["pairwise", "listwise"] = "listwise"
    """A positive row against each other row of its list, or against all of them at once."""

    def label_column(self) -> LabelColumn | None:
        """Its label, as the encoder reads it."""
        return LabelColumn(self.label, is_binary=True, positive=self.positive)

    def build(self) -> RankingTask:
        """Loss of this task."""
        return RankingTask(loss=self.loss)

"""guess_hidden(): how well a pre-trained model guesses ids that are hidden from it."""

# B rows, C classes

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from recmoe.data.loader import BatchLoader
from recmoe.model import PretrainingModel
from recmoe.model.pretraining import NOT_GUESSED, hidden_classes


@dataclass(frozen=True)
class HiddenIds:
    """The hidden ids of one feature, and how well they were guessed."""

    hidden_C: tuple[int, ...]
    """Hidden ids of each class."""
    shown_C: tuple[int, ...]
    """Those of the same rows that were not hidden."""
    loss_sum: float
    """Of their cross-entropies, in nats."""
    num_right: int
    """Guessed at once."""

    def merge(self, other: "HiddenIds") -> "HiddenIds":
        """Those of both."""
        return HiddenIds(
            hidden_C=_added(self.hidden_C, other.hidden_C),
            shown_C=_added(self.shown_C, other.shown_C),
            loss_sum=self.loss_sum + other.loss_sum,
            num_right=self.num_right + other.num_right,
        )

    @property
    def num_ids(self) -> int:
        return sum(self.hidden_C)

    @property
    def frequency_loss(self) -> float:
        """Mean cross-entropy of the frequencies of the ids that were not hidden, one id of each class added; NaN where
        none were hidden."""
        num_shown = sum(self.shown_C) + len(self.shown_C)
        losses = (
            hidden * math.log(num_shown / (shown + 1))
            for hidden, shown in zip(self.hidden_C, self.shown_C, strict=True)
        )
        return sum(losses) / self.num_ids if self.num_ids else math.nan

    @property
    def saved(self) -> float:
        """Share of that loss that the model saves: 1 is perfect, 0 no better; NaN where there is nothing to guess."""
        constant = self.frequency_loss
        return 1.0 - self.loss_sum / self.num_ids / constant if constant > 0 else math.nan

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``pretraining.json``; None where they are not defined."""
        num_ids = self.num_ids
        return {
            "classes": len(self.hidden_C),
            "hidden": num_ids,
            "loss": self.loss_sum / num_ids if num_ids else None,
            "frequency_loss": self.frequency_loss if num_ids else None,
            "saved": None if math.isnan(self.saved) else self.saved,
            "right": self.num_right / num_ids if num_ids else None,
        }


def score(found: Mapping[str, HiddenIds]) -> float:
    """Mean over the features of what is saved; NaN where there is nothing to guess."""
    values = [ids.saved for ids in found.values() if not math.isnan(ids.saved)]
    return sum(values) / len(values) if values else math.nan


Gather = Callable[[dict[str, HiddenIds]], list[dict[str, HiddenIds]]]


def guess_hidden(
    model: PretrainingModel, loader: BatchLoader, *, gather: Gather = lambda found: [found]
) -> dict[str, HiddenIds]:
    """Hide ids of all rows of a split and guess them, by feature; the same ones are hidden every time.

    Args:
        gather: collects one value per rank, in rank order.
    """
    found = {
        name: HiddenIds((0,) * num_classes, (0,) * num_classes, 0.0, 0)
        for name, num_classes in zip(model.features, model.num_classes, strict=True)
    }
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for index, (batch, num_real, _) in enumerate(loader.all_rows()):
                hidden = model.prepare(batch, -1 - index)
                of_features = zip(model.guess(hidden), hidden_classes(hidden), model.classes(hidden), strict=True)
                for name, tensors in zip(model.features, of_features, strict=True):
                    found[name] = found[name].merge(_guessed(*(tensor[:num_real] for tensor in tensors)))
    finally:
        model.train(was_training)
    first, *others = gather(found)
    for other in others:
        first = {name: ids.merge(other[name]) for name, ids in first.items()}
    return first


def _guessed(logits_BC: Tensor, hidden_B: Tensor, shown_B: Tensor) -> HiddenIds:
    loss = functional.cross_entropy(logits_BC, hidden_B, ignore_index=NOT_GUESSED, reduction="sum")
    return HiddenIds(
        hidden_C=_counts(hidden_B, logits_BC.shape[1]),
        shown_C=_counts(shown_B, logits_BC.shape[1]),
        loss_sum=float(loss),
        num_right=int((logits_BC.argmax(dim=1) == hidden_B).sum()),
    )


def _counts(classes_B: Tensor, num_classes: int) -> tuple[int, ...]:
    return tuple(torch.bincount(classes_B[classes_B != NOT_GUESSED], minlength=num_classes).tolist())


def _added(mine: Sequence[int], theirs: Sequence[int]) -> tuple[int, ...]:
    return tuple(one + other for one, other in zip(mine, theirs, strict=True))

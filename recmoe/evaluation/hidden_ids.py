"""guess_hidden(): how well a pre-trained model guesses ids that are hidden from it."""

# B rows, C classes

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from recmoe.data.loader import BatchLoader
from recmoe.model import PretrainingModel
from recmoe.model.pretraining import HIDES_NOTHING, classes_of


@dataclass(frozen=True)
class HiddenIds:
    """The hidden ids of one feature, and how well they were guessed."""

    counts_C: tuple[int, ...]
    """Hidden ids of each class."""
    loss_sum: float
    """Of their cross-entropies, in nats."""
    num_right: int
    """Guessed at once."""

    def merge(self, other: "HiddenIds") -> "HiddenIds":
        """Those of both."""
        counts = (mine + theirs for mine, theirs in zip(self.counts_C, other.counts_C, strict=True))
        return HiddenIds(tuple(counts), self.loss_sum + other.loss_sum, self.num_right + other.num_right)

    @property
    def num_ids(self) -> int:
        return sum(self.counts_C)

    @property
    def frequency_loss(self) -> float:
        """Mean cross-entropy of who knows how frequent each class is, and nothing of the row; NaN without ids."""
        shares = [count / self.num_ids for count in self.counts_C if count]
        return -sum(share * math.log(share) for share in shares) if shares else math.nan

    @property
    def saved(self) -> float:
        """Share of that loss that the model saves: 1 is perfect, 0 no better; NaN where all ids are of one class."""
        constant = self.frequency_loss
        return 1.0 - self.loss_sum / self.num_ids / constant if constant > 0 else math.nan

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``pretraining.json``; None where they are not defined."""
        num_ids = self.num_ids
        return {
            "classes": len(self.counts_C),
            "hidden": num_ids,
            "loss": self.loss_sum / num_ids if num_ids else None,
            "frequency_loss": self.frequency_loss if num_ids else None,
            "saved": None if math.isnan(self.saved) else self.saved,
            "right": self.num_right / num_ids if num_ids else None,
        }


def score(found: Mapping[str, HiddenIds]) -> float:
    """Mean over the features of what is saved; NaN where none has ids of several classes."""
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
        name: HiddenIds((0,) * num_classes, 0.0, 0)
        for name, num_classes in zip(model.features, model.num_classes, strict=True)
    }
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for index, (batch, num_real, _) in enumerate(loader.all_rows()):
                hidden = model.prepare(batch, -1 - index)
                pairs = zip(model.guess(hidden), classes_of(hidden), strict=True)
                for name, (logits_BC, classes_B) in zip(model.features, pairs, strict=True):
                    found[name] = found[name].merge(_guessed(logits_BC[:num_real], classes_B[:num_real]))
    finally:
        model.train(was_training)
    first, *others = gather(found)
    for other in others:
        first = {name: ids.merge(other[name]) for name, ids in first.items()}
    return first


def _guessed(logits_BC: torch.Tensor, classes_B: torch.Tensor) -> HiddenIds:
    counted_B = classes_B[classes_B != HIDES_NOTHING]
    loss = functional.cross_entropy(logits_BC, classes_B, ignore_index=HIDES_NOTHING, reduction="sum")
    return HiddenIds(
        counts_C=tuple(torch.bincount(counted_B, minlength=logits_BC.shape[1]).tolist()),
        loss_sum=float(loss),
        num_right=int((logits_BC.argmax(dim=1) == classes_B).sum()),
    )

"""Position: how far a run has come."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recmoe.data.order import Cursor
from recmoe.errors import CheckpointError


@dataclass(frozen=True)
class Position:
    """How far a run has come; what a checkpoint holds beside weights and optimizers."""

    cursor: Cursor
    step: int = 0
    best_step: int | None = None
    best_value: float | None = None
    num_worse: int = 0
    """Validations in a row without a better value."""
    train_s: float = 0.0
    """Seconds spent in training steps, validations and checkpoints left out."""
    wait_s: float = 0.0
    """Of them, seconds spent waiting for data."""
    num_samples: int = 0
    """Rows of all ranks."""
    loss_sums: tuple[float, ...] = ()
    """Sum of each loss since they were last logged; empty at the start."""
    num_summed: int = 0
    """Steps in the sums."""

    @property
    def samples_per_s(self) -> float:
        """Rows of all ranks per second of training, reading included."""
        return self.num_samples / max(self.train_s, 1e-9)

    @property
    def wait_share(self) -> float:
        """Share of the training time spent waiting for data."""
        return self.wait_s / max(self.train_s, 1e-9)

    def sums_of(self, num_losses: int) -> list[float]:
        """The sums of so many losses; 0 for those that a checkpoint of an earlier version does not know."""
        return [*self.loss_sums, *[0.0] * num_losses][:num_losses]

    def steps_of_run(self, num_per_epoch: int, *, epochs: int, world_size: int, batch_size: int) -> int:
        """Steps of a whole run: those done, the rest of this epoch, the epochs after it."""
        if self.cursor.epoch >= epochs:
            return self.step
        rest = self.cursor.num_steps(world_size=world_size, batch_size=batch_size)
        return self.step + rest + (epochs - self.cursor.epoch - 1) * num_per_epoch

    def to_json(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            "cursor": {"epoch": self.cursor.epoch, "remaining": [list(pair) for pair in self.cursor.remaining]},
            "step": self.step,
            "best_step": self.best_step,
            "best_value": self.best_value,
            "num_worse": self.num_worse,
            "train_s": self.train_s,
            "wait_s": self.wait_s,
            "num_samples": self.num_samples,
            "loss_sums": list(self.loss_sums),
            "num_summed": self.num_summed,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Position":
        """The inverse of ``to_json``; CheckpointError for what another version wrote."""
        try:
            cursor = values["cursor"]
            remaining = tuple((int(start), int(stop)) for start, stop in cursor["remaining"])
            loss_sums = tuple(values["loss_sums"])
            parts = {"cursor": Cursor(epoch=cursor["epoch"], remaining=remaining), "loss_sums": loss_sums}
            return cls(**{**values, **parts})
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"the checkpoint was written by another version of recmoe ({error}); train in another --run-dir"
            ) from error

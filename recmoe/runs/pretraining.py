"""What a pre-training has in the place of a validation and a report: how well hidden ids are guessed."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from recmoe.data.loader import Split
from recmoe.evaluation.hidden_ids import HiddenIds, score
from recmoe.evaluation.skill import SCORE
from recmoe.experiment import ExperimentConfig
from recmoe.runs.folder import RunFolder, write_atomically
from recmoe.training.early_stopping import Validation

Guess = Callable[[Split], dict[str, HiddenIds]]
"""Hides and guesses the ids of a split; collective."""


class HiddenIdsValidator:
    """What a validation of a pre-training says; see ``Validator``.

    Whatever metric of the tasks the config stops by, a pre-training stops by the share of the loss of frequencies that
    it saves, a mean over the hidden features.
    """

    def __init__(self, config: ExperimentConfig, guess: Guess) -> None:
        self._config = config
        self._guess = guess

    @property
    def stopping(self) -> Validation | None:
        """What decides when to stop."""
        stopping = self._config.training.early_stopping
        if stopping is None:
            return None
        return Validation(SCORE, is_higher_better=True, min_delta=stopping.min_delta, patience=stopping.patience)

    def values(self) -> tuple[dict[str, float], float | None]:
        """The curves; the stopping metric, NaN where it is not defined, None without one."""
        found = self._guess("validation")
        whole = score(found)
        saved = {f"val/hidden.{name}.saved": ids.saved for name, ids in found.items()} | {f"val/{SCORE}": whole}
        values = {name: value for name, value in saved.items() if not math.isnan(value)}
        return values, None if self.stopping is None else whole


def judging_split(config: ExperimentConfig) -> Split:
    """The rows that a pre-training is judged by at its end: of those there are, the ones that it has seen least."""
    return "test" if config.data.test else "validation" if config.data.validation else "train"


def write_pretraining_report(folder: RunFolder, split: Split, found: Mapping[str, HiddenIds]) -> None:
    """``pretraining.json``: what is saved, feature by feature and on the whole, on some split."""
    whole = score(found)
    report: dict[str, Any] = {
        "split": split,
        "score": None if math.isnan(whole) else whole,
        "features": {name: ids.to_json() for name, ids in found.items()},
    }
    write_atomically(folder.pretraining, json.dumps(report, indent=2))

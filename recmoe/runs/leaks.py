"""warn_of_leaks(): before a run learns, what each of its features alone tells is written down and warned of."""

import json
import logging

from recmoe.experiment import ExperimentConfig
from recmoe.onboarding.leaks import find_leaks
from recmoe.runs.folder import RunFolder, write_atomically
from recmoe.runs.splits import open_split
from recmoe.training.checkpoint_folder import committed

_logger = logging.getLogger(__name__)


def warn_of_leaks(config: ExperimentConfig, folder: RunFolder, *, is_strict: bool = False) -> None:
    """Look for leaks in a sample of the training rows and keep what was found in ``leaks.json``.

    A run that has a checkpoint was warned before.

    Raises:
        DataError: a feature is suspicious, and ``is_strict`` refuses that.
    """
    if committed(folder.checkpoints) and not is_strict:
        return
    report = find_leaks(config, open_split(config, folder, "train"))
    write_atomically(folder.leaks, json.dumps(report.to_json(), indent=2))
    if is_strict:
        report.refuse()
    for warning in report.warnings:
        _logger.warning("%s (%s)", warning, report.looked_at)


def leak_warnings(folder: RunFolder) -> tuple[str, ...]:
    """What a run was warned of, for its report page."""
    return tuple(json.loads(folder.leaks.read_text(encoding="utf-8"))["warnings"]) if folder.leaks.exists() else ()

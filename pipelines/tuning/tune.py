"""tune(): search for a better config: trials in Ray workers, drawn by Optuna, the poor ones stopped early."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.tuning.best import best_yaml
from pipelines.tuning.driver import TrialDriver
from pipelines.tuning.folder import TrialRecord, TuneFolder, best_of
from pipelines.tuning.page import write_tune_page
from pipelines.tuning.score import Score
from pipelines.tuning.space import Space, read_space
from pipelines.tuning.starting_space import starting_space
from pipelines.tuning.tracking import TuneTracking
from pipelines.tuning.trial import prepared, trial_config
from recmoe.data.loader import Split
from recmoe.experiment import ExperimentConfig, load_experiment
from recmoe.runs.folder import RunFolder, write_atomically
from recmoe.runs.splits import open_split

COMPARED: tuple[Split, ...] = ("train", "validation")
"""What scores depend on; the test split is not read."""


@dataclass(frozen=True)
class TuneResult:
    """What a search has found so far."""

    folder: TuneFolder
    config: ExperimentConfig
    """As it stood."""
    space: Space
    records: list[TrialRecord]
    is_interrupted: bool

    @property
    def best(self) -> TrialRecord | None:
        """The trial with the highest score."""
        return best_of(self.records)

    def changes(self, record: TrialRecord) -> dict[str, Any]:
        """What a trial had that the config has not."""
        return self.space.changes(self.config, record.values)


def tune(
    path: Path,
    root: Path,
    *,
    overrides: Sequence[str] = (),
    space: Path | None = None,
    num_trials: int = 30,
    time_s: float | None = None,
    num_concurrent: int = 1,
    resume: bool = False,
    is_quiet: bool = False,
) -> TuneResult:
    """Search around a config, and leave the best one and a page of what mattered in ``root``.

    Trials are compared on the validation split; the test split is not read. What is over stays: a search that was
    stopped or killed goes on with ``resume``, and loses the trials that were running.

    Args:
        path: the config; the first trial is the config as it stands.
        overrides: ``key.path=value`` for all trials.
        space: a YAML file of what is searched; around the config's own values by default.
        num_trials: trials of the whole search, those of earlier calls included.
        time_s: seconds after which running trials are cut.
        num_concurrent: trials at a time, which share the processor cores.
        is_quiet: no progress on the terminal.

    Raises:
        ConfigError: the config or the space is wrong.
        TrainingError: the folder holds something else, or the config as it stands cannot be trained.
        RecmoeError: the data or the tracking store is not usable.
    """
    config = load_experiment(path, overrides).learning_tasks()
    score = Score.of(config)
    searched = Space(starting_space(config)) if space is None else read_space(space, config)
    searched.check(config)
    folder = TuneFolder(root)
    folder.start(config, searched.to_json(), resume=resume)
    is_interrupted = False
    tracking = None
    if len(folder.records()) < num_trials:
        first = trial_config(config, {}, folder.work.resolve())
        rows = [open_split(first, RunFolder(folder.work), split).identity for split in ("train", "validation")]
        folder.check_rows(rows)
        prepared(first, folder.work.resolve(), is_quiet=is_quiet)
        tracking = TuneTracking.start(config, folder)
        driver = TrialDriver(config, searched, folder, tracking, num_trials=num_trials, is_quiet=is_quiet)
        try:
            is_interrupted = driver.run(num_concurrent=num_concurrent, time_s=time_s)
        except BaseException:
            tracking.finish(folder, "failed")
            raise
    result = TuneResult(folder, config, searched, folder.records(), is_interrupted)
    if result.best is not None:
        write_atomically(folder.best, _best_yaml(result, result.best, score, path, overrides))
        write_tune_page(result.records, searched, config, score, folder.page)
    if tracking is not None:
        tracking.finish(folder, "killed" if is_interrupted else "finished")
    if len(result.records) >= num_trials:
        shutil.rmtree(folder.work, ignore_errors=True)
    return result


def _best_yaml(result: TuneResult, best: TrialRecord, score: Score, path: Path, overrides: Sequence[str]) -> str:
    """The text of the best config, with what it is at its top."""
    assert best.score is not None
    comments = [
        f"The best of {len(result.records)} trials: trial {best.number} with {score.metric} "
        f"{score.shown(best.score):.4f} on the validation split."
    ]
    before = next((record.score for record in result.records if record.number == 0), None)
    if before is not None and best.number != 0:
        comments.append(f"{path.name} as it stood has {score.shown(before):.4f}.")
    comments.append(f"recmoe train {result.folder.best} --run-dir runs/{result.config.name}-tuned")
    return best_yaml(path, result.folder.best, overrides=overrides, values=result.changes(best), comments=comments)

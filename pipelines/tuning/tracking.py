"""TuneTracking: a search as a run, and its trials as runs inside it."""

from collections.abc import Mapping

from pipelines.tuning.folder import TrialRecord, TuneFolder
from recmoe.config import dump_config
from recmoe.experiment import ExperimentConfig
from recmoe.runs.source import RUNS
from recmoe.tracking.tracker import Status, Tracker, TrackingConfig, metric_name


class TuneTracking:
    """Records a search where its config says.

    Args:
        config: of the trials' runs.
        whole: the run of the whole search.
    """

    def __init__(self, config: TrackingConfig, whole: Tracker) -> None:
        self._config = config
        self._whole = whole
        self._trials: dict[int, Tracker] = {}

    @classmethod
    def start(cls, config: ExperimentConfig, folder: TuneFolder) -> "TuneTracking":
        """Start the run of a search, or go on with it.

        Raises:
            RegistryError: the store does not answer.
        """
        whole = config.tracking.build(run_name=f"{config.name} tune", folder=RUNS, run_id=folder.tracking_run_id)
        folder.remember(tracking_run_id=whole.run_id)
        whole.log_config(dump_config(config))
        # The machine is recorded once, by the whole search.
        return cls(config.tracking.model_copy(update={"system_metrics": False}), whole)

    def started(self, number: int, config: ExperimentConfig) -> None:
        """A trial begins."""
        tracker = self._config.build(run_name=f"trial {number}", folder=RUNS, parent_id=self._whole.run_id)
        tracker.log_config(dump_config(config))
        self._trials[number] = tracker

    def reported(self, number: int, step: int, values: Mapping[str, float], *, score: float) -> None:
        """A validation of a trial."""
        named = {metric_name("val", name.removeprefix("val/")): value for name, value in values.items()}
        self._trials[number].log_metrics({**named, "score": score}, step=step)

    def ended(self, number: int, record: TrialRecord | None, *, best: TrialRecord | None = None) -> None:
        """A trial is over; without a record it is lost."""
        tracker = self._trials.pop(number)
        if record is None:
            tracker.finish("killed")
            return
        if record.score is not None:
            tracker.log_metrics({"best_score": record.score}, step=0)
        tracker.set_tags({"recmoe.trial": str(number), "recmoe.trial_status": record.status})
        tracker.finish("failed" if record.status == "failed" else "finished")
        if best is not None and best.score is not None:
            self._whole.log_metrics({"best_score": best.score}, step=number)

    def finish(self, folder: TuneFolder, status: Status) -> None:
        """The call is over: what it has made goes where the search is recorded."""
        for path in (folder.best, folder.page, folder.records_file):
            if path.exists():
                self._whole.log_file(path)
        for tracker in self._trials.values():
            tracker.finish("killed")
        self._whole.finish(status)

"""What of a run goes where it is recorded: facts, files, numbers, report."""

from collections.abc import Mapping

from recmoe.evaluation.report import Report
from recmoe.experiment import ExperimentConfig
from recmoe.runs.folder import RunFolder
from recmoe.runs.origin import lineage_of
from recmoe.tracking.tracker import Tracker, allowed_name, metric_name


def record_results(folder: RunFolder, tracker: Tracker) -> None:
    """Report, page and plan go where the run is recorded."""
    tracker.log_file(folder.plan)
    if (pretraining := folder.pretraining_report()) is not None:
        tracker.log_file(folder.pretraining)
        if pretraining["score"] is not None:
            tracker.log_metrics({f"{pretraining['split']}/score": pretraining["score"]}, step=folder.state["step"])
        return
    tracker.log_file(folder.leaks)
    if folder.cost.exists():
        tracker.log_file(folder.cost)
    if folder.report.exists():
        report = Report.from_json(folder.report.read_text(encoding="utf-8"))
        values = {f"test/{name}": value for name, value in {**report.values(), **report.experts}.items()}
        if report.baselines is not None:
            values |= {
                f"baseline/{kind}/{name}": one.value
                for kind, estimates in report.baselines.values.items()
                for name, one in estimates.items()
                if one.value is not None
            }
            tracker.log_file(folder.baselines)
        tracker.log_metrics(tracked(values), step=folder.state["step"])
        tracker.log_file(folder.report)
        tracker.log_file(folder.page)
    tracker.set_tags({"recmoe.bundle": str(folder.bundle.resolve())})


def run_facts(config: ExperimentConfig, folder: RunFolder) -> dict[str, str]:
    """What a run is found by among others."""
    root = str(folder.root.resolve())
    lineage = lineage_of(folder)
    return {
        **({} if lineage is None else lineage.tags()),
        "mlflow.source.name": root,
        "mlflow.source.type": "LOCAL",
        "recmoe.folder": root,
        "recmoe.config": config.name,
        "recmoe.architecture": config.model.architecture.kind,
        "recmoe.seed": str(config.seed),
    }


def record_files(config: ExperimentConfig, folder: RunFolder, tracker: Tracker) -> None:
    """The training files, by what tells them from others."""
    digest, num_rows = folder.state["train_files"], folder.state["num_train_rows"]
    tracker.log_dataset(split="train", paths=config.data.train, digest=digest, num_rows=num_rows)


def id_metrics(folder: RunFolder) -> dict[str, float]:
    """How full the tables of dynamic ids are, and how much of the traffic they leave to row 0."""
    names = ("rows_used", "admitted", "evicted", "waiting", "unknown_share")
    updates: dict[str, dict[str, float]] = folder.state.get("id_updates", {})
    return {metric_name("ids", f"{table}/{name}"): update[name] for table, update in updates.items() for name in names}


def tracked(values: Mapping[str, float]) -> dict[str, float]:
    """Numbers of a report under names that MLflow allows."""
    tracked = {}
    for name, value in values.items():
        prefix, _, rest = name.partition("/")
        # The value of a slice may have any letters.
        tracked[metric_name(prefix, rest) if "[" in rest else allowed_name(name)] = value
    return tracked

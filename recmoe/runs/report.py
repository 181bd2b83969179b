"""write_run_report(): what a finished run reached on its test split, and what its gates did on the way."""

import json
from dataclasses import replace

from recmoe.evaluation.by_group import group_routing
from recmoe.evaluation.evaluate import evaluate
from recmoe.evaluation.expert_curves import PREFIX, expert_curves
from recmoe.evaluation.page import write_report_page
from recmoe.evaluation.predict import Scored
from recmoe.experiment import ExperimentConfig
from recmoe.runs.about import about_run
from recmoe.runs.alarms import alarm_warnings
from recmoe.runs.baselines import set_beside
from recmoe.runs.folder import RunFolder, write_atomically
from recmoe.runs.leaks import leak_warnings


def write_run_report(config: ExperimentConfig, folder: RunFolder, scored: Scored) -> None:
    """``report.json`` and ``report.html`` of a run.

    Args:
        scored: the test split.
    """
    report = evaluate(scored.predictions, config=config.evaluation)
    baselines = set_beside(scored.predictions, folder, config.evaluation)
    routing = group_routing(scored.shares, scored.predictions, config=config.evaluation)
    report = replace(report, baselines=baselines, experts=expert_curves(scored.levels), routing=routing)
    write_atomically(folder.report, report.to_json())
    write_report_page(
        report,
        scored.predictions,
        scored.levels,
        folder.page,
        title=f"{config.name}: test split",
        about=about_run(config, folder),
        warnings=(*leak_warnings(folder), *alarm_warnings(folder)),
        history=expert_history(folder),
    )


def expert_history(folder: RunFolder) -> dict[int, dict[str, float]]:
    """The use of experts on the validation split, by step; see ``expert_curves``."""
    if not folder.metrics.exists():
        return {}
    lines = [json.loads(line) for line in folder.metrics.read_text(encoding="utf-8").splitlines()]
    found = {
        line["step"]: {name: value for name, value in line.items() if name.startswith(f"{PREFIX}/")} for line in lines
    }
    return {step: values for step, values in found.items() if values}

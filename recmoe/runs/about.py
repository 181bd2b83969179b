"""about_run(): where the numbers of a report come from, for its header."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from recmoe.experiment import ExperimentConfig
from recmoe.runs.folder import RunFolder


def about_run(config: ExperimentConfig, folder: RunFolder) -> dict[str, str]:
    """What a reader of a report asks first, in words."""
    return {
        **about_config(config),
        "run folder": str(folder.root),
        "checkpoint": checkpoint_in_words(folder.state) or "the last step",
    }


def about_config(config: ExperimentConfig) -> dict[str, str]:
    """The part that a bundle knows as well."""
    return {
        "architecture": config.model.architecture.kind,
        "seed": str(config.seed),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "test files": ", ".join(config.data.test) or "none",
        "training files": ", ".join(config.data.train),
    }


def checkpoint_in_words(state: Mapping[str, Any]) -> str | None:
    """Which step's weights the test split was scored with; None before a run has trained."""
    if state.get("step") is None:
        return None
    last, best = state["step"], state.get("best_step")
    if best is None:
        return f"step {last:,}, the last one"
    return f"step {best:,} of {last:,}, the best by validation"

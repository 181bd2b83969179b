"""Row and table: a first model beside its baselines, task by task."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Row:
    """One task of one architecture: the better is the higher, errors are negative."""

    log: str
    kind: str
    task: str
    metric: str
    num_positive: int
    best: float | None
    """What the true probabilities reach on the test."""
    logistic: float
    lightgbm: float
    low: float
    """Lower end of the better baseline's interval."""
    high: float
    models: list[float]
    """By seed."""
    difference_low: float
    """Of the mean over seeds and the better baseline, over the same resamples."""
    difference_high: float
    seconds: float

    @property
    def mark(self) -> str:
        """``<<``: below the better baseline's interval; ``<``: the difference is, over the same resamples."""
        return "<<" if np.mean(self.models) < self.low else "<" if self.difference_high < 0 else ""


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| log | task | metric | positive | best | logistic | lightgbm | better one's interval | model | by seed | "
        "difference, paired | mark |",
        "|" + "---|" * 12,
    ]
    for row in rows:
        best = "" if row.best is None else f"{row.best:.3f}"
        seeds = " ".join(f"{value:.3f}" for value in row.models)
        lines.append(
            f"| {row.log} {row.kind} | {row.task} | {row.metric} | {row.num_positive} | {best} | {row.logistic:.3f} | "
            f"{row.lightgbm:.3f} | {row.low:.3f} to {row.high:.3f} | {np.mean(row.models):.3f} | {seeds} | "
            f"{row.difference_low:+.3f} to {row.difference_high:+.3f} | {row.mark} |"
        )
    return "\n".join(lines)

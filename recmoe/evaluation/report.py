"""Report: every number of an evaluation with its task, space, slice and interval."""

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from recmoe.errors import EvaluationError
from recmoe.evaluation.baselines import Baselines
from recmoe.json_document import checked, read_object

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1


def metric_name(task: str, metric: str, space: str) -> str:
    """The name of a number: ``cvr.auc[click]``."""
    return f"{task}.{metric}[{space}]"


@dataclass(frozen=True)
class MetricRow:
    """One number."""

    task: str
    space: str
    """``all``, or the label column that is 1 in the task's space."""
    metric: str
    """``auc``, ``ndcg@10``, …"""
    slice: str | None
    """``column=value``, or None for all rows of the space."""
    value: float | None
    """None where the metric is not defined."""
    low: float | None
    """Lower end of the 95 % interval; None without resamples."""
    high: float | None
    """Upper end of the 95 % interval."""
    num_rows: int
    """Rows in the space and slice with a known label."""
    num_positive: int | None
    """Of those, rows with label 1; None where the label is a value."""
    num_groups_used: int | None = None
    """Groups behind the value; None for metrics over rows."""
    num_groups_dropped: int | None = None
    """Groups left out because they have no value of their own."""
    reason: str | None = None
    """Why there is no value."""

    @property
    def name(self) -> str:
        """``cvr.auc[click]``; with its slice ``cvr.auc[click, device=phone]``."""
        return metric_name(self.task, self.metric, self.space if self.slice is None else f"{self.space}, {self.slice}")


@dataclass(frozen=True)
class GroupRouting:
    """How much the experts of a row depend on its group, for one gate; see ``group_routing``."""

    gate: str
    """``level 0, gate ctr``."""
    column: str
    """The raw column whose values are the groups."""
    num_groups: int
    information: float
    """Mutual information of group and expert, in nats, less what chance makes of it where there are resamples."""
    low: float | None
    """Lower end of the 95 % interval; None without resamples."""
    high: float | None
    """Upper end of the 95 % interval."""
    entropy: float
    """Of the experts over all rows, in nats: the information there would be if the group decided alone."""


@dataclass(frozen=True)
class Report:
    """The rows of an evaluation: by slice (all rows first), task and metric."""

    rows: tuple[MetricRow, ...]
    num_rows: int
    """Rows of the split, whatever space they are in."""
    num_resamples: int
    """Bootstrap resamples behind the intervals; 0 where there are none."""
    baselines: Baselines | None = None
    """Simple models over the same rows; None where none were computed."""
    experts: Mapping[str, float] = field(default_factory=dict)
    """How gates used experts, and how alike these are, by the names of ``expert_curves``; none without gates."""
    routing: tuple[GroupRouting, ...] = ()
    """What gates make of the groups of each slice column."""
    mean_predictions: Mapping[str, float] = field(default_factory=dict)
    """By task, over all rows of the split, in its space or not: a server that ranks does not know spaces either."""

    def row(self, name: str) -> MetricRow:
        """A row by name: ``cvr.auc[click]``, or ``cvr.auc[click, device=phone]``.

        Raises:
            EvaluationError: no such row; lists what there is.
        """
        by_name = {row.name: row for row in self.rows}
        if name in by_name:
            return by_name[name]
        near = difflib.get_close_matches(name, by_name, n=1, cutoff=0.3)
        hint = f"; did you mean {near[0]}?" if near else "."
        known = ", ".join(row.name for row in self.rows if row.slice is None)
        raise EvaluationError(f"no metric {name} in this report{hint} There are: {known or 'none'}")

    def value(self, name: str) -> float:
        """The number of a row by name; NaN where it is not defined (``row(name).reason`` says why).

        Raises:
            EvaluationError: no such row; lists what there is.
        """
        value = self.row(name).value
        return math.nan if value is None else value

    def values(self) -> dict[str, float]:
        """All numbers over all rows that are defined, by name; slices left out."""
        return {row.name: row.value for row in self.rows if row.slice is None and row.value is not None}

    def frame(self, *, slices: bool = False) -> "pd.DataFrame":
        """A row per number: task, metric, space, value, low, high, NaN where not defined.

        Args:
            slices: the numbers of each slice too, with a column ``slice``.
        """
        import pandas as pd

        columns = ["task", "metric", "space", *(["slice"] if slices else []), "value", "low", "high"]
        rows = [row for row in self.rows if slices or row.slice is None]
        frame = pd.DataFrame([{name: getattr(row, name) for name in columns} for row in rows], columns=columns)
        return frame.astype(dict.fromkeys(("value", "low", "high"), float))

    def to_json(self) -> str:
        """The report as a JSON document."""
        document = {
            "format": FORMAT,
            "num_rows": self.num_rows,
            "num_resamples": self.num_resamples,
            "rows": [asdict(row) for row in self.rows],
            **({} if self.baselines is None else {"baselines": self.baselines.to_json()}),
            **({"experts": dict(self.experts)} if self.experts else {}),
            **({"routing": [asdict(one) for one in self.routing]} if self.routing else {}),
            **({"mean_predictions": dict(self.mean_predictions)} if self.mean_predictions else {}),
        }
        return json.dumps(document, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Report":
        """The report that ``to_json`` wrote.

        Raises:
            EvaluationError: the text is not such a report.
        """
        try:
            document = read_object(text)
            version = document["format"]
            if version != FORMAT:
                raise EvaluationError(
                    f"the report has format {version}, this version of recmoe reads {FORMAT}; evaluate the model again"
                )
            return checked(_REPORT, document)
        except (ValueError, KeyError) as error:
            raise EvaluationError(
                f"not a report of recmoe ({type(error).__name__}: {error}); evaluate the model again"
            ) from error


_REPORT = TypeAdapter(Report)

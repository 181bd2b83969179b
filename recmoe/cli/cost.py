"""What a model costs next to the one that it was made from, as columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from recmoe.cli.output import print_columns

NOT_DEFINED = float("nan")


def print_cost(report: Mapping[str, Any] | None) -> None:
    """Both models side by side; nothing for a model that was made from none."""
    if report is None:
        return
    lineage, before, after = report["lineage"], report["before"], report["after"]
    print(f"\n{lineage['made_by']} from {lineage['source']} (digest {lineage['digest'][:12]})\n")
    print_tasks(report["tasks"])
    costs = [
        ("parameters without tables", "dense_parameters"),
        ("parameters of tables", "table_parameters"),
        ("bytes of tables", "table_bytes"),
        ("FLOPs per row", "flops_per_row"),
        (f"ms to rank {report['num_candidates']}", "rank_ms"),
        ("ms of these in the network", "model_ms"),
    ]
    print_columns(
        ["cost", "before", "after", "before / after"],
        [(title, before[key], after[key], _ratio(before[key], after[key])) for title, key in costs],
    )


def print_tasks(tasks: Sequence[Mapping[str, Any]]) -> None:
    """Tasks of both models by their main metric; nothing where none was measured."""
    if not tasks:
        return
    print_columns(
        ["task.metric[space]", "before", "after", "better by", "low", "high", "the new model is"],
        [
            (f"{one['task']}.{one['metric']}[{one['space']}]",
             *(number(one[key]) for key in ("before", "after", "advantage", "low", "high")), one["verdict"])
            for one in tasks
        ],
    )  # fmt: skip
    print()


def number(value: float | None) -> float:
    """A metric as a column shows it."""
    return NOT_DEFINED if value is None else value


def _ratio(before: float, after: float) -> float:
    return before / after if after else NOT_DEFINED

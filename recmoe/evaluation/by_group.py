"""Groups of users: what gates make of them, and a report's numbers by group, in words.

Mutual information from counts is too large by chance. Bias and interval are those of the basic bootstrap: Davison &
Hinkley, Bootstrap Methods and their Application, 1997, sections 2.2 and 5.2.
"""

# N rows, R resamples, S groups, V experts visible to a gate

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recmoe.evaluation.bootstrap import draw_counts, percentiles
from recmoe.evaluation.evaluate import EvaluationConfig, slice_masks
from recmoe.evaluation.main_metrics import main_metrics
from recmoe.evaluation.metrics.metric import FloatArray
from recmoe.evaluation.predictions import Predictions
from recmoe.evaluation.report import GroupRouting, MetricRow, Report
from recmoe.evaluation.tables import format_interval, format_number
from recmoe.moe.balance.statistics import SMALLEST_SHARE, visible
from recmoe.moe.gate_use import GateUse

Shares = Mapping[str, NDArray[np.float32]]
"""By ``level 0, gate ctr``: shares_NV of the experts that a gate sees, in every row; 0 where it gave nothing."""

SMALLEST_ENTROPY = 1e-6
"""Of the experts, in nats; below it, one gets everything."""

FEWEST_ROWS = 20
"""Of either label: a group with fewer is neither the best nor the worst, for its interval is too narrow."""


def gate_shares(uses: Sequence[GateUse], num_rows: int) -> dict[str, Tensor]:
    """What each gate that sees several experts gives the first rows of a batch, as parts of what it gives the row."""
    found = {}
    for use in uses:
        for gate, (name, seen_E) in enumerate(zip(use.gates, visible(use), strict=True)):
            w_BV = use.weights_BGE[:num_rows, gate, seen_E].detach()
            if w_BV.shape[1] > 1:
                total_B1 = w_BV.sum(dim=1, keepdim=True).clamp(min=SMALLEST_SHARE)
                found[f"level {use.level}, gate {name}"] = w_BV / total_B1
    return found


def group_routing(shares: Shares, predictions: Predictions, *, config: EvaluationConfig) -> tuple[GroupRouting, ...]:
    """How much the experts of a row depend on its group, for every gate and every slice column.

    With P(s, v) = Σ_n [group of n is s] · p[n, v] / N, the information is Σ P(s, v) · log(P(s, v) / (P(s) · P(v))),
    over all rows, whatever counts for a task. I over the rows themselves and I* over resamples of them give the
    estimate 2 · I - mean(I*), which chance alone does not raise, and the interval from 2 · I - q97.5(I*) to
    2 · I - q2.5(I*); neither is below 0. Resamples are those of the metrics: of whole lists or users, where the log
    names them in ``inputs.group``.

    Args:
        shares: in the order of the predictions.
    """
    codes = {column: _codes(predictions, column, config) for column in config.slices}
    joints = {
        (column, gate): [joint_RSV]
        for column, code_N in codes.items()
        for gate, joint_RSV in _joint(shares, code_N, np.ones((1, predictions.num_rows))).items()
    }
    for counts_RN in draw_counts(
        num_rows=predictions.num_rows,
        groups_N=predictions.groups_N,
        num_resamples=config.num_resamples,
        seed=config.seed,
    ):
        for column, code_N in codes.items():
            for gate, joint_RSV in _joint(shares, code_N, counts_RN).items():
                joints[column, gate].append(joint_RSV)
    return tuple(_routing(column, gate, np.concatenate(found)) for (column, gate), found in joints.items())


def _codes(predictions: Predictions, column: str, config: EvaluationConfig) -> NDArray[np.int64]:
    """The group of each row, as slices of the metrics have them."""
    code_N = np.zeros(predictions.num_rows, dtype=np.int64)
    for code, (_, mask_N) in enumerate(slice_masks(predictions.slices[column], max_values=config.max_slice_values)):
        code_N[mask_N] = code
    return code_N


def _joint(shares: Shares, code_N: NDArray[np.int64], counts_RN: FloatArray) -> dict[str, FloatArray]:
    """By gate, joint_RSV: what each expert got of the rows of each group."""
    sums: dict[str, list[FloatArray]] = {gate: [] for gate in shares}
    for code in range(int(code_N.max(initial=0)) + 1):
        rows = np.flatnonzero(code_N == code)
        counts_Rn = counts_RN[:, rows]
        for gate, shares_NV in shares.items():
            sums[gate].append(counts_Rn @ shares_NV[rows].astype(np.float64))
    return {gate: np.stack(of_gate, axis=1) for gate, of_gate in sums.items()}


def _routing(column: str, gate: str, joint_RSV: FloatArray) -> GroupRouting:
    """Of all rows, which come first, and of their resamples."""
    p_RSV = joint_RSV / np.maximum(joint_RSV.sum(axis=(1, 2), keepdims=True), SMALLEST_SHARE)
    expert_R = _entropy(p_RSV.sum(axis=1))
    information_R = expert_R + _entropy(p_RSV.sum(axis=2)) - _entropy(p_RSV.reshape(len(p_RSV), -1))
    value, low, high = float(information_R[0]), None, None
    bounds = percentiles(information_R[1:])
    if bounds is not None:
        high, low = (max(0.0, 2 * value - bound) for bound in bounds)
        value = max(0.0, 2 * value - float(information_R[1:].mean()))
    return GroupRouting(
        gate=gate,
        column=column,
        num_groups=joint_RSV.shape[1],
        information=value,
        low=low,
        high=high,
        entropy=float(expert_R[0]),
    )


def _entropy(p_RK: FloatArray) -> FloatArray:
    """-Σ p · log p over the last axis, in nats."""
    entropy_R: FloatArray = -(p_RK * np.log(np.where(p_RK > 0, p_RK, 1.0))).sum(axis=-1)
    return entropy_R


def group_sentences(report: Report) -> Iterator[str]:
    """What a report says of groups of users: where its main metrics are best and worst, and what gates make of them."""
    names = main_metrics(row.name for row in report.rows if row.slice is None)
    columns = dict.fromkeys(row.slice.partition("=")[0] for row in report.rows if row.slice is not None)
    for column in columns:
        for name in names:
            yield from _metric_sentence(report, name, column)
        of_column = [one for one in report.routing if one.column == column and one.num_groups > 1]
        yield from (f"{one.gate}: {_routing_sentence(one)}" for one in of_column)
        if any(one.low for one in of_column):
            yield (
                f"where {column} shall not decide about experts: set model.balance (kind groups) to a feature of kind "
                "id that says it"
            )


def _metric_sentence(report: Report, name: str, column: str) -> Iterator[str]:
    """Where a metric is highest and lowest; nothing where fewer than two groups of some size have it."""
    whole = report.row(name)
    rows = [
        row
        for row in report.rows
        if row.slice is not None
        and row.slice.partition("=")[0] == column
        and (row.task, row.metric, row.space) == (whole.task, whole.metric, whole.space)
        and row.value is not None
        and _is_large(row)
    ]
    if len(rows) < 2:
        return
    lowest, *_, highest = sorted(rows, key=lambda row: row.value or 0.0)
    text = f"{name} is highest for {_with_interval(highest)} and lowest for {_with_interval(lowest)}"
    if highest.low is not None and lowest.high is not None:
        text += "; their intervals do not meet" if highest.low > lowest.high else "; their intervals overlap"
    yield text


def _is_large(row: MetricRow) -> bool:
    """Whether resamples of a group's rows say how far its value can be trusted."""
    positive = row.num_rows if row.num_positive is None else min(row.num_positive, row.num_rows - row.num_positive)
    return positive >= FEWEST_ROWS


def _with_interval(row: MetricRow) -> str:
    return f"{row.slice} ({format_number(row.value)} {format_interval(row)}".rstrip() + ")"


def _routing_sentence(one: GroupRouting) -> str:
    if one.entropy < SMALLEST_ENTROPY:
        return f"gives all rows the same expert, whatever their {one.column}"
    part, low, high = (None if value is None else value / one.entropy for value in (one.information, one.low, one.high))
    if low is None or high is None:
        return f"{one.column} decides {part:.1%} of which expert a row gets, chance included"
    if low == 0.0:
        return f"uses its experts alike for every {one.column}, as far as these rows can tell (at most {high:.1%})"
    return f"{one.column} decides {part:.1%} [{low:.1%}, {high:.1%}] of which expert a row gets"

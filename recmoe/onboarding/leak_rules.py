"""judge: whether what one feature tells of one task is too good to be honest, and the finding in words.

Honest features get far: age .94 and the tax form .90 of "never married", a hotel's place .78 of a click. So a value
alone is suspicious near 1 only; whether a column is filled at all, or one flag, much earlier: known before the
event they seldom reach .78, while a flag of a later step of the funnel reaches .84 and more.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from recmoe.onboarding.alone import TaskRows, auc_error
from recmoe.onboarding.column_values import MAX_EXACT, Bools, ColumnValues

LEAK_AUC = 0.95
"""AUC of a feature alone from which it is suspicious; other limits keep their distance from it."""
FLAG_MARGIN = 0.15
"""So much less is suspicious where only "filled or not" is looked at."""
GAP_MARGIN = 0.05
"""So much less is suspicious where all weaker features together stay ``GAP`` behind."""
GAP = 0.15
MANY_VALUES_SHARE = 0.4
"""Of the distance to 1, what an id of many values must come near: users and items honestly know a lot."""
SURE_SHARE = 0.98
"""Share of filled rows with the label from which the label follows from the column."""
MIN_CASES = 10
"""Positive and negative rows, and filled rows in each half, below which nothing is said."""
FEW_VALUES = 10
"""Different values of a column that may be an outcome."""

Reason = Literal["alone", "outcome", "afterwards"]


@dataclass(frozen=True)
class Leak:
    """A feature that tells suspiciously much of a task."""

    feature: str
    task: str
    """``cvr among click`` for a task with a space, ``spend > 0`` for what a regression shares with a flag."""
    reason: Reason
    """``alone``: by its values; ``outcome``: a column of few values that goes with the label; ``afterwards``: by being
    filled."""
    measure: Literal["auc", "rank_correlation", "share"]
    """What ``value`` is: of the values, of "filled or not", or the share of filled rows with the label."""
    value: float
    words: str
    """What was found, with its number."""


@dataclass(frozen=True)
class Evidence:
    """One feature beside one task."""

    feature: str
    values: ColumnValues
    task: TaskRows
    is_second_N: Bools
    value: float
    """AUC or rank correlation of the feature alone; NaN where it is not looked at."""
    weaker: Callable[[], float]
    """The same of all features that tell less, together."""

    @cached_property
    def is_positive_n(self) -> Bools:
        """Of the rows that count."""
        return self.task.label_N[self.task.counts_N] > 0.5

    @cached_property
    def is_filled_n(self) -> Bools:
        """Of the rows that count."""
        return self.values.is_filled_N[self.task.counts_N]

    @property
    def num_cases(self) -> int:
        """Positive or negative rows, whichever are fewer."""
        num_positive = int(self.is_positive_n.sum())
        return min(num_positive, len(self.is_positive_n) - num_positive)

    @property
    def flag_auc(self) -> float:
        """AUC of "filled or not", whichever way it points."""
        return 0.5 + abs(self.filled_share(positive=True) - self.filled_share(positive=False)) / 2

    def filled_share(self, *, positive: bool) -> float:
        """Share of filled rows among those with the label, or without it."""
        return float(self.is_filled_n[self.is_positive_n == positive].mean())

    def error(self, auc: float) -> float:
        """Standard error of an AUC over the rows that count."""
        num_positive = int(self.is_positive_n.sum())
        return auc_error(auc, num_positive, len(self.is_positive_n) - num_positive)


def judge(evidence: Evidence, *, leak_auc: float = LEAK_AUC) -> Leak | None:
    """The finding, or None where the feature may be honest.

    A limit counts as passed where the value less two standard errors passes it, so that few positives do not alarm.
    """
    if evidence.task.kind == "regression":
        return _judge_regression(evidence, leak_auc)
    if evidence.num_cases < MIN_CASES:
        return None
    by_value = _judge_value(evidence, leak_auc)
    by_flag = _judge_flag(evidence, leak_auc) or _judge_consequence(evidence)
    if by_value is None or by_flag is None:
        return by_value or by_flag
    # Where being filled says it nearly all, that is the better hint.
    is_flag = evidence.values.num_distinct <= FEW_VALUES or by_flag.value > by_value.value - 0.01
    return by_flag if is_flag else by_value


def _judge_value(evidence: Evidence, leak_auc: float) -> Leak | None:
    auc, is_many = evidence.value, not evidence.values.is_number and evidence.values.num_distinct > MAX_EXACT
    if np.isnan(auc):
        return None
    sure_auc = auc - 2 * evidence.error(auc)
    limit = 1 - MANY_VALUES_SHARE * (1 - leak_auc) if is_many else leak_auc
    if sure_auc < (limit if is_many else limit - GAP_MARGIN):
        return None
    weaker = evidence.weaker()
    if sure_auc < limit and auc - weaker < GAP:
        return None
    rest = "" if np.isnan(weaker) else f" (all weaker features together: {weaker:.3f})"
    words = f"its value alone predicts {evidence.task.label} with AUC {auc:.3f}{rest}"
    return Leak(evidence.feature, evidence.task.label, "alone", "auc", auc, words)


def _judge_flag(evidence: Evidence, leak_auc: float) -> Leak | None:
    auc = evidence.flag_auc
    if auc - 2 * evidence.error(auc) < leak_auc - FLAG_MARGIN:
        return None
    task, is_few = evidence.task.label, evidence.values.num_distinct <= FEW_VALUES
    agreement = float((evidence.is_filled_n == evidence.is_positive_n).mean())
    inside, outside = evidence.filled_share(positive=True), evidence.filled_share(positive=False)
    if is_few and agreement >= SURE_SHARE and inside >= SURE_SHARE - 0.08:
        words = f"it is a copy of {task} in {agreement:.1%} of the rows"
    elif is_few and agreement <= 1 - SURE_SHARE and outside >= SURE_SHARE - 0.08:
        words = f"it is the opposite of {task} in {1 - agreement:.1%} of the rows"
    else:
        words = (
            f"it is {'set' if is_few else 'filled'} in {inside:.1%} of the rows with {task} and in {outside:.1%} of "
            f"the others"
        )
    words = f"{words}, AUC {auc:.3f} by that alone"
    return Leak(evidence.feature, task, "outcome" if is_few else "afterwards", "auc", auc, words)


def _judge_consequence(evidence: Evidence) -> Leak | None:
    """A column that is filled only where the label is 1, as a purchase is only where there is a click."""
    base = float(evidence.is_positive_n.mean())
    is_second_n = evidence.is_second_N[evidence.task.counts_N]
    for is_here_n in (is_second_n, ~is_second_n):
        positive_f = evidence.is_positive_n[evidence.is_filled_n & is_here_n]
        if len(positive_f) < MIN_CASES or positive_f.mean() < SURE_SHARE or base > 0.5:
            return None
    share = float(evidence.is_positive_n[evidence.is_filled_n].mean())
    num_filled, is_few = int(evidence.is_filled_n.sum()), evidence.values.num_distinct <= FEW_VALUES
    words = (
        f"{share:.1%} of the {num_filled:,} rows in which it is {'set' if is_few else 'filled'} have "
        f"{evidence.task.label}, of all rows {base:.1%}"
    )
    reason: Reason = "outcome" if is_few else "afterwards"
    return Leak(evidence.feature, evidence.task.label, reason, "share", share, words)


def _judge_regression(evidence: Evidence, leak_auc: float) -> Leak | None:
    """A rank correlation is to an AUC as 2 · AUC - 1."""
    correlation, num_rows = evidence.value, evidence.task.num_rows
    if num_rows < 2 * MIN_CASES or np.isnan(correlation):
        return None
    sure = correlation - 2 * (1 - correlation**2) / num_rows**0.5
    if sure < 2 * leak_auc - 1:
        return None
    words = f"its value alone predicts {evidence.task.label} with a rank correlation of {correlation:.3f}"
    return Leak(evidence.feature, evidence.task.label, "alone", "rank_correlation", correlation, words)

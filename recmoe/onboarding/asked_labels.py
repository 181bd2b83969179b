"""asked_labels: outcomes that the user names, such as ``income=50000+.`` and ``rating>=4``."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from recmoe.errors import DataError
from recmoe.features.columns import shown_names
from recmoe.onboarding.column_names import feature_name
from recmoe.onboarding.profile import ColumnProfile, LogProfile
from recmoe.onboarding.roles import LabelRole
from recmoe.onboarding.values import is_number, is_text

_COMPARISON = re.compile(r"(?P<column>.+?)\s*(?P<sign>>=|>|=)\s*(?P<value>.+)", re.DOTALL)
MAX_SHOWN = 8


def asked_labels(log: LogProfile, asked: Sequence[str]) -> list[LabelRole]:
    """A label per text: a column, or a column with what counts as 1.

    Raises:
        DataError: a column that is not there, a value that does not occur, or a column that is no outcome by itself.
    """
    labels: list[LabelRole] = []
    for text in asked:
        column, positive = _parsed(log, text)
        label = _plain(column) if positive is None else _with_positive(column, positive)
        is_first = all(known.column != column.name for known in labels)
        name = None if is_first else feature_name(f"{column.name}_{'_'.join(map(str, _values(positive)))}")
        labels.append(replace(label, name=name))
    return labels


def known_column(log: LogProfile, name: str, *, option: str) -> ColumnProfile:
    """A column of the log by name; DataError with what is near or there if it is missing."""
    if name in log.columns:
        return log.columns[name]
    near = difflib.get_close_matches(name, log.columns, n=1)
    hint = f"did you mean {shown_names(near)}?" if near else f"there are {shown_names(log.columns)}"
    raise DataError(f"{option} {name}: the log has no such column, {hint}")


def _parsed(log: LogProfile, text: str) -> tuple[ColumnProfile, Any]:
    match = None if text in log.columns else _COMPARISON.fullmatch(text)
    if match is None:
        return known_column(log, text, option="--label"), None
    column = known_column(log, match["column"], option="--label")
    if match["sign"] == "=":
        return column, match["value"]
    try:
        threshold = float(match["value"])
    except ValueError:
        raise DataError(f"--label {text}: {match['value']} is no number to compare with") from None
    return column, {"at_least" if match["sign"] == ">=" else "above": threshold}


def _plain(column: ColumnProfile) -> LabelRole:
    """The label that a column is without a word about its values."""
    if column.is_binary:
        return LabelRole(column.name, "binary", None, positive=column.positive)
    if is_number(column.type):
        return LabelRole(column.name, "regression", None)
    two = two_values(column)
    if two is not None:
        return two
    raise DataError(f"--label {column.name}: say which value counts as 1, as in {column.name}=VALUE; {_shown(column)}")


def two_values(column: ColumnProfile) -> LabelRole | None:
    """A column of two texts or of 1 and 2 as a label; the rarer text is the outcome."""
    counts = {value: count for value, count in (column.tally or {}).items() if value != ""}
    if set(counts) == {1.0, 2.0}:
        return LabelRole(column.name, "binary", None, positive=2, num_positive=counts[2.0], note="1 means no")
    if len(counts) != 2 or not is_text(column.type):
        return None
    rarer, other = sorted(counts, key=lambda value: (counts[value], str(value)))
    note = f"the rarer of {rarer} and {other}; is it the right one?"
    return LabelRole(column.name, "binary", None, positive=rarer, num_positive=counts[rarer], note=note)


def _with_positive(column: ColumnProfile, positive: Any) -> LabelRole:
    num_positive = 0
    if isinstance(positive, dict):
        if not is_number(column.type):
            raise DataError(f"--label {column.name}: {column.type} cannot be compared; give a value, {_shown(column)}")
        threshold, is_strict = next(iter(positive.values())), "above" in positive
        for value, count in (column.tally or {}).items():
            assert isinstance(value, float)
            num_positive += count if value > threshold or (value == threshold and not is_strict) else 0
        return LabelRole(column.name, "binary", None, positive=positive, num_positive=num_positive or None)
    value = _typed(column, positive)
    if column.tally is not None and value not in column.tally:
        raise DataError(f"--label {column.name}={positive}: the value does not occur; {_shown(column)}")
    return LabelRole(column.name, "binary", None, positive=value, num_positive=(column.tally or {}).get(value))


def _typed(column: ColumnProfile, value: str) -> float | str:
    if not is_number(column.type):
        return value
    try:
        return float(value)
    except ValueError:
        raise DataError(f"--label {column.name}={value}: {value} is no number; {_shown(column)}") from None


def _values(positive: Any) -> list[Any]:
    return list(positive.values()) if isinstance(positive, dict) else [positive]


def _shown(column: ColumnProfile) -> str:
    if column.tally is None:
        return f"it holds {column.num_distinct:,} different values"
    values = [f"{value:g}" if isinstance(value, float) else value for value in column.tally]
    return f"it holds {', '.join(values[:MAX_SHOWN])}{', …' if len(values) > MAX_SHOWN else ''}"

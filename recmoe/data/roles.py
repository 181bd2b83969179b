"""Roles: a guess at what each column of a log is, from its values, its name and its company."""

import re
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recmoe.data import column_names as names
from recmoe.data.profile import ColumnProfile, LogProfile, is_list, is_number, is_text, is_time, times_of_text
from recmoe.features.layout import Side

SEPARATORS = ("|", ";", ",", " ")
MAX_FLAG_VALUES = 2
# Seconds from 1990 to 2100, in the units in which clocks count.
CLOCK_UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
CLOCK_RANGE_S = (631_152_000, 4_102_444_800)


@dataclass(frozen=True)
class LabelRole:
    """An outcome, and the outcome without which it does not happen."""

    column: str
    kind: Literal["binary", "regression"]
    space: str | None
    is_compressed: bool = False
    """Fitted on log1p: some values are far larger than most."""


@dataclass(frozen=True)
class FeatureRole:
    """A column the model reads."""

    column: str
    kind: Literal["id", "id_list", "numeric"]
    side: Side
    separator: str | None = None
    is_compressed: bool = False
    note: str = ""


@dataclass
class Roles:
    """What every column of the log is taken for."""

    labels: list[LabelRole] = field(default_factory=list)
    features: list[FeatureRole] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Columns the model does not read, with the reason."""
    time: str | None = None
    group: str | None = None
    """Rows of one list, or of one user where the log has no lists."""
    is_group_a_list: bool = False
    user: str | None = None
    item: str | None = None


def guess_roles(log: LogProfile) -> Roles:
    """Sort the columns; what is no label, place or time and can be read is a feature."""
    roles = Roles()
    _leave_out_empty(log, roles)
    _find_time(log, roles)
    _find_groups(log, roles)
    _find_labels(log, roles)
    for column in log.columns.values():
        if column.name in roles.left_out or any(label.column == column.name for label in roles.labels):
            continue
        feature = _feature(log, roles, column)
        if isinstance(feature, str):
            roles.left_out[column.name] = feature
        else:
            roles.features.append(feature)
    return roles


def _leave_out_empty(log: LogProfile, roles: Roles) -> None:
    for column in log.columns.values():
        if column.num_nulls == column.num_rows:
            roles.left_out[column.name] = "empty"
        elif not (is_number(column.type) or is_text(column.type) or is_time(column.type) or is_list(column.type)):
            roles.left_out[column.name] = f"of type {column.type}, which no feature reads"
        elif column.num_distinct <= 1 and not column.num_nulls:
            roles.left_out[column.name] = "the same value in every row"


def clock_unit(column: ColumnProfile) -> str | None:
    """The unit of a number that counts from 1970; None where it is no clock."""
    if not is_number(column.type) or column.low is None or column.high is None or column.is_binary:
        return None
    for unit, factor in CLOCK_UNITS.items():
        if CLOCK_RANGE_S[0] * factor <= column.low and column.high <= CLOCK_RANGE_S[1] * factor:
            return unit
    return None


def _find_time(log: LogProfile, roles: Roles) -> None:
    """The column with the time of the row: nearly never null, and the finest of those."""
    found = []
    for column in log.columns.values():
        words = names.words(column.name)
        is_clock = is_time(column.type) or (words & names.TIME_WORDS and (clock_unit(column) or _is_clock(log, column)))
        if column.name in roles.left_out or not is_clock:
            continue
        roles.left_out[column.name] = "a time: weekday or hour would be features, the time itself only grows"
        if column.num_nulls <= 0.01 * column.num_rows and not words & names.OTHER_TIME_WORDS:
            found.append(column)
    if found:
        roles.time = max(found, key=lambda column: column.num_distinct).name
        roles.left_out[roles.time] = (
            "the time of the row, by which the log was split; it only grows, so it is no feature"
        )


def _is_clock(log: LogProfile, column: ColumnProfile) -> bool:
    """Whether all texts of the sample are times."""
    if not is_text(column.type):
        return False
    try:
        times_of_text(log.sample[column.name])
    except pa.ArrowInvalid:
        return False
    return True


def _find_groups(log: LogProfile, roles: Roles) -> None:
    lists: list[ColumnProfile] = []
    users: list[ColumnProfile] = []
    items: list[ColumnProfile] = []
    for column in log.columns.values():
        words = names.words(column.name)
        is_name_of_something = names.is_id_name(column.name) or bool(words & (names.USER_WORDS | names.ITEM_WORDS))
        is_key = is_text(column.type) or pa.types.is_integer(column.type)
        if column.name in roles.left_out or not is_key or not is_name_of_something or column.num_distinct < 3:
            continue
        rows_per_value = (column.num_rows - column.num_nulls) / column.num_distinct
        if words & names.LIST_WORDS and names.is_id_name(column.name) and rows_per_value >= 1.2:
            lists.append(column)
        elif words & names.USER_WORDS and (len(words) == 1 or _is_plain_id(column)) and rows_per_value >= 1.2:
            users.append(column)
        elif words & names.ITEM_WORDS and _is_plain_id(column):
            items.append(column)
    if users:
        roles.user = max(users, key=lambda column: column.num_distinct).name
    if items:
        roles.item = max(items, key=lambda column: column.num_distinct).name
    if lists:
        roles.group = max(lists, key=lambda column: column.num_distinct).name
        roles.is_group_a_list = True
        for column in lists:
            roles.left_out[column.name] = "names a list of rows: never seen again when ranking"
    elif roles.user is not None:
        roles.group = roles.user


def _is_plain_id(column: ColumnProfile) -> bool:
    return bool(
        names.words(column.name) & {"id", "sku", "asin", "key", "code"} or re.search(r"id$", column.name.lower())
    )


def _find_labels(log: LogProfile, roles: Roles) -> None:
    candidates = [
        column.name for column in log.columns.values() if column.is_binary and column.name not in roles.left_out
    ]
    chosen = [name for name in candidates if names.is_label_name(name)]
    if not chosen and candidates:
        chosen = candidates[-1:]
    # What happens only where an outcome happened is an outcome of it.
    chosen += [
        name for name in candidates if name not in chosen and any(log.is_only_within(name, other) for other in chosen)
    ]
    chosen = [name for name in candidates if name in chosen and not _is_copy(log, roles, name, chosen)]
    for name in chosen:
        roles.labels.append(LabelRole(name, "binary", _space(log, name, chosen)))
    for column in log.columns.values():
        if column.name in roles.left_out or column.name in chosen or column.is_binary:
            continue
        space = _space(log, column.name, chosen)
        is_amount = is_number(column.type) and not names.is_id_name(column.name) and column.name != roles.item
        if is_amount and (space is not None or _is_own_amount(log, roles, column)):
            is_compressed = _is_skewed(log, column)
            roles.labels.append(LabelRole(column.name, "regression", space, is_compressed))
        elif space is not None:
            roles.left_out[column.name] = f"filled only where {space} is 1: not known when ranking"


def _is_own_amount(log: LogProfile, roles: Roles, column: ColumnProfile) -> bool:
    """An amount by its name, unless it says something about the item or the user."""
    owners = [owner for owner in (roles.item, roles.user) if owner is not None]
    return names.is_amount_name(column.name) and not any(log.is_constant_within(column.name, owner) for owner in owners)


def _is_copy(log: LogProfile, roles: Roles, name: str, chosen: list[str]) -> bool:
    for earlier in chosen[: chosen.index(name)]:
        if not log.num_positive_outside[name, earlier] and not log.num_positive_outside[earlier, name]:
            roles.left_out[name] = f"equal to {earlier} in every row"
            return True
    return False


def _space(log: LogProfile, name: str, labels: list[str]) -> str | None:
    """The rarest outcome within which a column is filled."""
    outer = [label for label in labels if log.is_only_within(name, label)]
    return min(outer, key=lambda label: log.columns[label].num_positive, default=None)


def _feature(log: LogProfile, roles: Roles, column: ColumnProfile) -> FeatureRole | str:
    """The feature made of a column, or the reason why there is none."""
    side = _side(log, roles, column.name)
    share_distinct = column.num_distinct / max(column.num_rows - column.num_nulls, 1)
    if is_list(column.type):
        if pa.types.is_floating(column.type.value_type) or is_list(column.type.value_type):
            return f"of type {column.type}: lists of ids can be read, vectors cannot"
        return FeatureRole(column.name, "id_list", side)
    if is_text(column.type):
        separator = _separator(log, column)
        if separator is not None:
            return FeatureRole(column.name, "id_list", side, separator=separator)
        if share_distinct > 0.95 and column.num_rows > 50:
            return "a new value in nearly every row: nothing to learn per value"
        if _is_free_text(log, column, share_distinct):
            return "free text: no feature reads it"
        return FeatureRole(column.name, "id", side)
    if pa.types.is_boolean(column.type) or column.is_binary or column.num_distinct <= MAX_FLAG_VALUES:
        note = "0 or 1: if it is an outcome, make it a task, or the model reads the answer" if column.is_binary else ""
        return FeatureRole(column.name, "id", side, note=note)
    is_whole = pa.types.is_integer(column.type) or _is_whole(log, column.name)
    if is_whole and (names.is_id_name(column.name) or column.name in (roles.user, roles.item)):
        if share_distinct > 0.95 and column.num_rows > 50:
            return "a new value in nearly every row: nothing to learn per value"
        return FeatureRole(column.name, "id", side)
    if is_whole and _is_row_number(column, share_distinct):
        return "numbers the rows"
    return FeatureRole(column.name, "numeric", side, is_compressed=_is_skewed(log, column))


def _side(log: LogProfile, roles: Roles, name: str) -> Side:
    words = names.words(name)
    if name == roles.item:
        return "item"
    if name == roles.user or (roles.user is not None and log.is_constant_within(name, roles.user)):
        return "user"
    if roles.is_group_a_list and roles.group is not None:
        return "context" if log.is_constant_within(name, roles.group) else "item"
    if words & names.USER_WORDS:
        return "user"
    return "context" if names.is_context_name(name) else "item"


def _texts(log: LogProfile, name: str) -> pa.Array:
    column = log.sample[name].combine_chunks()
    return pc.drop_null(column.cast(pa.large_string()))


def _separator(log: LogProfile, column: ColumnProfile) -> str | None:
    """What splits the texts into fewer different parts than there are texts."""
    texts = pc.unique(_texts(log, column.name))
    for separator in SEPARATORS:
        has_it = pc.mean(pc.match_substring(texts, separator).cast(pa.float64())).as_py() or 0.0
        parts = pc.list_flatten(pc.split_pattern(texts, separator))
        num_parts = len(pc.unique(parts))
        is_prose = bool(pc.mean(pc.match_substring_regex(parts, r"^\s|\s$|^$").cast(pa.float64())).as_py() > 0.2)
        # Blanks join words as often as ids: there the parts must come again and again.
        most = 0.05 if separator == " " else 0.5
        if has_it >= 0.3 and not is_prose and num_parts < min(len(texts), most * len(parts)):
            return separator
    return None


def _is_free_text(log: LogProfile, column: ColumnProfile, share_distinct: float) -> bool:
    texts = _texts(log, column.name)
    num_words = pc.mean(pc.add(pc.count_substring(texts, " "), 1)).as_py() or 0.0
    return bool(num_words >= 4 and share_distinct > 0.3)


def _is_whole(log: LogProfile, name: str) -> bool:
    values = pc.drop_null(log.sample[name].cast(pa.float64())).to_numpy(zero_copy_only=False)
    values = values[np.isfinite(values)]
    return bool((values == np.round(values)).all())


def _is_row_number(column: ColumnProfile, share_distinct: float) -> bool:
    if column.low is None or column.high is None or share_distinct < 0.95 or column.num_rows <= 50:
        return False
    return column.high - column.low < 1.05 * column.num_rows


def _is_skewed(log: LogProfile, column: ColumnProfile) -> bool:
    """Whether the largest values dwarf most: amounts, counts, prices."""
    if column.low is None or column.low < 0:
        return False
    values = pc.drop_null(log.sample[column.name].cast(pa.float64())).to_numpy(zero_copy_only=False)
    values = values[np.isfinite(values) & (values > 0)]
    return bool(values.size and np.quantile(values, 0.99) > 5 * np.quantile(values, 0.5))

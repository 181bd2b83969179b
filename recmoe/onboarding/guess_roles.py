"""guess_roles: what each column of a log is, from its values, its name and its company."""

import re
from dataclasses import replace

import pyarrow as pa

from recmoe.onboarding import column_names as names
from recmoe.onboarding.guess_features import guess_feature, is_skewed, with_table
from recmoe.onboarding.profile import ColumnProfile, LogProfile, is_list, is_number, is_text, is_time, times_of_text
from recmoe.onboarding.roles import FeatureRole, LabelRole, Roles

# What pandas calls an index that it writes with the columns.
INDEX_NAME = re.compile(r"__index_level_\d+__|(Unnamed: \d+)?")
# Seconds from 1990 to 2100, in the units in which clocks count.
CLOCK_UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
CLOCK_RANGE_S = (631_152_000, 4_102_444_800)


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
        feature = guess_feature(log, roles, column)
        if isinstance(feature, str):
            roles.left_out[column.name] = feature
        else:
            roles.features.append(feature)
    roles.features = [_sent_once(log, roles, with_table(log, roles.features, feature)) for feature in roles.features]
    return roles


def _sent_once(log: LogProfile, roles: Roles, feature: FeatureRole) -> FeatureRole:
    """Lists of items that the item does not determine are what the user had before."""
    if roles.item is None or feature.kind != "id_list" or feature.table != roles.item or feature.side != "item":
        return feature
    return feature if log.is_constant_within(feature.column, roles.item) else replace(feature, side="user")


def _leave_out_empty(log: LogProfile, roles: Roles) -> None:
    for column in log.columns.values():
        if column.num_nulls == column.num_rows:
            roles.left_out[column.name] = "empty"
        elif INDEX_NAME.fullmatch(column.name):
            roles.left_out[column.name] = "the index of a data frame: it numbers the rows"
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
    # An outcome taken for a feature spoils every task; a feature taken for an outcome is only missed.
    happening = [name for name in candidates if name not in chosen and _happens_per_row(log, roles, name)]
    chosen += happening
    if not chosen and candidates:
        chosen = candidates[-1:]
    # What happens only where an outcome happened is an outcome of it.
    chosen += [
        name for name in candidates if name not in chosen and any(log.is_only_within(name, other) for other in chosen)
    ]
    chosen = [name for name in candidates if name in chosen and not _is_copy(log, roles, name, chosen)]
    for name in chosen:
        note = "known before the list is shown? then make it a feature" if name in happening else ""
        roles.labels.append(LabelRole(name, "binary", _space(log, name, chosen), note=note))
    for column in log.columns.values():
        if column.name in roles.left_out or column.name in chosen or column.is_binary:
            continue
        space = _space(log, column.name, chosen)
        is_amount = is_number(column.type) and not names.is_id_name(column.name) and column.name != roles.item
        if is_amount and (space is not None or _is_own_amount(log, roles, column)):
            is_compressed = is_skewed(log, column)
            roles.labels.append(LabelRole(column.name, "regression", space, is_compressed))
        elif space is not None:
            roles.left_out[column.name] = f"filled only where {space} is 1: not known when ranking"


def _happens_per_row(log: LogProfile, roles: Roles, name: str) -> bool:
    """Whether a column of 0 and 1 is a property of neither user, item nor list, and its name does not say otherwise."""
    owners = (roles.user, roles.item, roles.group if roles.is_group_a_list else None)
    if names.is_state_name(name):
        return False
    return all(owner is not None and not log.is_constant_within(name, owner) for owner in owners)


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

"""guess_roles: what each column of a log is, from its values, its name and its company."""

import re
from collections.abc import Sequence
from dataclasses import replace

from recmoe.onboarding import column_names as names
from recmoe.onboarding.asked_labels import asked_labels, known_column
from recmoe.onboarding.guess_features import guess_feature, with_table
from recmoe.onboarding.guess_groups import asked_owners, find_groups
from recmoe.onboarding.guess_labels import find_labels
from recmoe.onboarding.profile import LogProfile
from recmoe.onboarding.roles import FOUND, FeatureRole, Owners, Roles
from recmoe.onboarding.times import is_clock
from recmoe.onboarding.values import is_list, is_number, is_text, is_time

# What pandas calls an index that it writes with the columns.
INDEX_NAME = re.compile(r"__index_level_\d+__|(Unnamed: \d+)?")


def guess_roles(
    log: LogProfile, *, labels: Sequence[str] = (), leave_out: Sequence[str] = (), owners: Owners = FOUND
) -> Roles:
    """Sort the columns; what is no label, place or time and can be read is a feature.

    Args:
        labels: outcomes that the user names, see ``asked_labels``; others are found beside them.
        leave_out: columns that are neither.
        owners: the columns of list, item and user, where the user names them.

    Raises:
        DataError: a column that is not there, no such outcome, or a column that names nothing.
    """
    roles = Roles()
    for name in leave_out:
        roles.left_out[known_column(log, name, option="--leave-out").name] = "left out as asked"
    asked = asked_labels(log, labels)
    outcomes = {label.column for label in asked}
    named = asked_owners(log, owners, outcomes)
    _leave_out_empty(log, roles)
    _find_time(log, roles, taken=named | outcomes)
    find_groups(log, roles, owners)
    find_labels(log, roles, asked)
    taken = {label.column for label in roles.labels}
    for column in log.columns.values():
        if column.name in roles.left_out or column.name in taken:
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
    if roles.item is None or feature.kind != "id_list" or feature.table != roles.item:
        return feature
    side = feature.side
    if side == "item":
        if log.is_constant_within(feature.column, roles.item):
            return feature
        side = "user"
    return replace(feature, side=side, note="in the order of time, the newest last? then kind: sequence")


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
        elif names.words(column.name) & names.LOGGING_POLICY_WORDS:
            roles.left_out[column.name] = "a probability of the policy that wrote the log: not known to another one"


def _find_time(log: LogProfile, roles: Roles, *, taken: set[str]) -> None:
    """The column with the time of the row: nearly never null, and the finest of those."""
    found = []
    for column in log.columns.values():
        if column.name in roles.left_out or column.name in taken or not is_clock(log, column):
            continue
        roles.left_out[column.name] = "a time: weekday or hour would be features, the time itself only grows"
        is_of_row = not names.words(column.name) & names.OTHER_TIME_WORDS
        if column.num_nulls <= 0.01 * column.num_rows and is_of_row:
            found.append(column)
    if found:
        roles.time = max(found, key=lambda column: column.num_distinct).name
        roles.left_out[roles.time] = "the time of the row: it only grows, so it is no feature; weekday or hour would be"

"""find_groups: which columns name the user, the item and the list of a row."""

import re
from collections.abc import Collection
from dataclasses import asdict

from recmoe.errors import DataError
from recmoe.onboarding import column_names as names
from recmoe.onboarding.asked_labels import known_column
from recmoe.onboarding.profile import ColumnProfile, LogProfile
from recmoe.onboarding.roles import Owners, Roles
from recmoe.onboarding.values import is_text, is_whole

MIN_LISTS = 10
LIST_REASON = "names a list of rows: never seen again when ranking"


def asked_owners(log: LogProfile, owners: Owners, outcomes: Collection[str]) -> set[str]:
    """The columns that the user names.

    Raises:
        DataError: a column that is not there, that is an outcome, or that is both the item and another one.
    """
    asked = {option: name for option, name in asdict(owners).items() if name is not None}
    for option, name in asked.items():
        known_column(log, name, option=f"--{option}")
        if name in outcomes:
            raise DataError(f"--{option} {name}: --label names it as an outcome; drop one of the two")
        if option != "item" and name == owners.item:
            raise DataError(f"--item {name}: it is the {option} too; a candidate has an id of its own")
    return set(asked.values())


def find_groups(log: LogProfile, roles: Roles, owners: Owners) -> None:
    """Fill in user, item and group: what the user names, and else what is found.

    Raises:
        DataError: a column that the user names does not hold ids.
    """
    for option, name in asdict(owners).items():
        if name is not None and (problem := _problem(log, roles, name)) is not None:
            raise DataError(f"--{option} {name}: expected a column of ids, {problem}")
    _guess_groups(log, roles, set(asdict(owners).values()))
    roles.user = owners.user or roles.user
    roles.item = owners.item or roles.item
    if owners.group is not None:
        roles.group, roles.is_group_a_list = owners.group, owners.group != roles.user
    elif not roles.is_group_a_list:
        roles.group = roles.user
    if roles.group is not None and roles.is_group_a_list:
        roles.left_out[roles.group] = LIST_REASON


def _problem(log: LogProfile, roles: Roles, name: str) -> str | None:
    """Why a column names nothing; None where it does."""
    column = log.columns[name]
    if name in roles.left_out:
        return f"this one is {roles.left_out[name]}"
    if is_text(column.type) or is_whole(log.sample[name]):
        return None
    return f"found {column.type}"


def _guess_groups(log: LogProfile, roles: Roles, asked: set[str | None]) -> None:
    """Fill in what names and values show, but for columns that the user names."""
    lists: list[ColumnProfile] = []
    users: list[ColumnProfile] = []
    items: list[ColumnProfile] = []
    for column in log.columns.values():
        words = names.words(column.name)
        is_name_of_something = names.is_id_name(column.name) or bool(words & (names.USER_WORDS | names.ITEM_WORDS))
        is_free = column.name not in roles.left_out and column.name not in asked
        if not is_free or not is_name_of_something or not _is_key(log, column):
            continue
        rows_per_value = (column.num_rows - column.num_nulls) / column.num_distinct
        if words & names.LIST_WORDS and names.is_id_name(column.name) and rows_per_value >= 1.2:
            # A few values are no lists but kinds of pages or queries.
            if column.num_distinct >= MIN_LISTS and not words & names.PAST_WORDS:
                lists.append(column)
        elif words & names.USER_WORDS and (len(words) == 1 or _is_plain_id(column)) and rows_per_value >= 1.2:
            users.append(column)
        elif words & names.ITEM_WORDS and (words <= names.ITEM_WORDS or _is_plain_id(column)):
            items.append(column)
    if users:
        # A customer may be the one who advertises.
        plain = [column for column in users if names.words(column.name) & names.PLAIN_USER_WORDS] or users
        roles.user = max(plain, key=lambda column: column.num_distinct).name
    if items:
        plain = [column for column in items if _is_plain_id(column)] or items
        roles.item = max(plain, key=lambda column: column.num_distinct).name
    if lists:
        roles.group = max(lists, key=lambda column: column.num_distinct).name
        roles.is_group_a_list = True
        for column in lists:
            roles.left_out[column.name] = LIST_REASON


def _is_key(log: LogProfile, column: ColumnProfile) -> bool:
    """Texts and whole numbers of several values; pandas makes floats of integers with gaps."""
    if column.num_distinct < 3 or column.num_infinite:
        return False
    return is_text(column.type) or is_whole(log.sample[column.name])


def _is_plain_id(column: ColumnProfile) -> bool:
    return bool(
        names.words(column.name) & {"id", "sku", "asin", "key", "code"} or re.search(r"id$", column.name.lower())
    )

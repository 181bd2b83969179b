"""find_groups: which columns name the user, the item and the list of a row."""

import re

from recmoe.onboarding import column_names as names
from recmoe.onboarding.profile import ColumnProfile, LogProfile
from recmoe.onboarding.roles import Roles
from recmoe.onboarding.values import is_text, is_whole

MIN_LISTS = 10


def find_groups(log: LogProfile, roles: Roles) -> None:
    """Fill in user, item and group."""
    lists: list[ColumnProfile] = []
    users: list[ColumnProfile] = []
    items: list[ColumnProfile] = []
    for column in log.columns.values():
        words = names.words(column.name)
        is_name_of_something = names.is_id_name(column.name) or bool(words & (names.USER_WORDS | names.ITEM_WORDS))
        if column.name in roles.left_out or not is_name_of_something or not _is_key(log, column):
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
            roles.left_out[column.name] = "names a list of rows: never seen again when ranking"
    elif roles.user is not None:
        roles.group = roles.user


def _is_key(log: LogProfile, column: ColumnProfile) -> bool:
    """Texts and whole numbers of several values; pandas makes floats of integers with gaps."""
    if column.num_distinct < 3 or column.num_infinite:
        return False
    return is_text(column.type) or is_whole(log.sample[column.name])


def _is_plain_id(column: ColumnProfile) -> bool:
    return bool(
        names.words(column.name) & {"id", "sku", "asin", "key", "code"} or re.search(r"id$", column.name.lower())
    )

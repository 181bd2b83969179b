"""find_labels: which columns are outcomes, and which outcome lies within which."""

from collections.abc import Sequence
from itertools import takewhile

import numpy as np

from recmoe.onboarding import column_names as names
from recmoe.onboarding.asked_labels import two_values
from recmoe.onboarding.guess_features import is_skewed
from recmoe.onboarding.profile import ColumnProfile, LogProfile
from recmoe.onboarding.roles import LabelRole, Roles
from recmoe.onboarding.values import is_number, is_text, is_whole
from recmoe.onboarding.yaml_text import quoted

MAX_SCALE_STEPS = 11
ASK = "known before the list is shown? then make it a feature"


def find_labels(log: LogProfile, roles: Roles, asked: Sequence[LabelRole] = ()) -> None:
    """Fill in the outcomes, and leave out what copies them or is only known after them.

    An outcome taken for a feature spoils every task; a feature taken for an outcome is only missed.

    Args:
        asked: labels that the user names.
    """
    plain_asked = {label.column for label in asked if log.columns[label.column].is_binary}
    taken = {label.column for label in asked} - plain_asked
    candidates = [
        column.name
        for column in log.columns.values()
        if column.is_binary and column.name not in roles.left_out and column.name not in taken
    ]
    chosen = [name for name in candidates if names.is_label_name(name) or name in plain_asked]
    happening = [name for name in candidates if name not in chosen and _happens_per_row(log, roles, name)]
    happening += [name for name in candidates if name not in chosen and _is_condition(log, roles, name, asked)]
    chosen += [name for name in happening if name not in chosen]
    found = [*_ratings(log, roles), *_counts(log, roles), *_named_values(log, roles)]
    found = [label for label in found if label.column not in taken]
    others = [*(label for label in asked if label.column in taken), *found]
    if not found and plain_asked.issuperset(chosen):
        last = _last_columns(log, roles, candidates) or candidates[-1:]
        last_of_two = [] if last else _last_of_two_values(log, roles)
        if asked:
            guessed = [*last, *(label.column for label in last_of_two)]
            _leave_out_doubtful(log, roles, [name for name in guessed if name not in plain_asked | taken])
        else:
            chosen, others = last, last_of_two
    # What happens only where an outcome happened is an outcome of it.
    chosen += [
        name for name in candidates if name not in chosen and any(log.is_only_within(name, other) for other in chosen)
    ]
    chosen = _without_copies(log, roles, candidates, [name for name in candidates if name in chosen])
    for name in chosen:
        column = log.columns[name]
        note = ASK if name in happening else ""
        roles.labels.append(LabelRole(name, "binary", _space(log, name, chosen), note=note, positive=column.positive))
    roles.labels += others
    _find_amounts(log, roles, chosen)


def _find_amounts(log: LogProfile, roles: Roles, chosen: list[str]) -> None:
    """Numbers that are outcomes by their name, or are filled only where an outcome happened."""
    taken = {label.column for label in roles.labels}
    for column in log.columns.values():
        if column.name in roles.left_out or column.name in taken or column.is_binary:
            continue
        space = _space(log, column.name, chosen)
        is_amount = is_number(column.type) and not names.is_id_name(column.name) and column.name != roles.item
        if is_amount and (space is not None or _is_own_amount(log, roles, column)):
            if column.num_infinite or max(abs(column.low or 0.0), abs(column.high or 0.0)) > np.finfo(np.float32).max:
                roles.left_out[column.name] = "an outcome with values too large for a float: mend them to predict it"
            else:
                roles.labels.append(LabelRole(column.name, "regression", space, is_skewed(log, column)))
        elif space is not None:
            roles.left_out[column.name] = f"filled only where {space} is 1: not known when ranking"


def _is_condition(log: LogProfile, roles: Roles, name: str, asked: Sequence[LabelRole]) -> bool:
    """Whether what the user asks for happens only where this did: an outcome before it, such as the click of a sale."""
    if names.is_state_name(name) or _is_property(log, roles, name):
        return False
    return any(log.is_only_within(label.column, name) for label in asked)


def _leave_out_doubtful(log: LogProfile, roles: Roles, guessed: Sequence[str]) -> None:
    """Leave out what would be the outcomes if the user had not named others, and what is filled only with them."""
    for name in guessed:
        if names.is_state_name(name) or _is_property(log, roles, name):
            continue
        feature = names.feature_name(name)
        column = f", column: {quoted(name)}" if feature != name else ""
        entry = f"{quoted(feature)}: {{kind: id{column}}}"
        roles.left_out[name] = f"an outcome too? if it is known before the list is shown, add the feature {entry}"
        within = [inner for inner in log.columns if log.is_only_within(inner, name) and inner not in roles.left_out]
        roles.left_out |= dict.fromkeys(within, f"filled only where {name} is 1, which may be an outcome")
        roles.doubtful += [name, *within]


def _last_columns(log: LogProfile, roles: Roles, candidates: Sequence[str]) -> list[str]:
    """The candidates with which the log ends: tables are written with what is known first, and outcomes last."""
    read = [name for name in log.columns if name not in roles.left_out]
    num_last = len(list(takewhile(lambda name: name in candidates, reversed(read))))
    return read[len(read) - num_last :]


def _happens_per_row(log: LogProfile, roles: Roles, name: str) -> bool:
    """Whether a no or yes is a property of neither user, item nor list, and its name does not say otherwise."""
    if names.is_state_name(name) or roles.user is None or roles.item is None:
        return False
    owners = [roles.user, roles.item] + ([roles.group] if roles.is_group_a_list and roles.group else [])
    return not any(log.is_constant_within(name, owner) for owner in owners)


def _is_own_amount(log: LogProfile, roles: Roles, column: ColumnProfile) -> bool:
    """An amount or a time of attention by its name, unless it says something about the item or the user."""
    is_named_so = names.is_amount_name(column.name) or names.is_attention_name(column.name)
    return is_named_so and not _is_property(log, roles, column.name)


def _is_property(log: LogProfile, roles: Roles, name: str) -> bool:
    return any(log.is_constant_within(name, owner) for owner in (roles.item, roles.user) if owner is not None)


def _ratings(log: LogProfile, roles: Roles) -> list[LabelRole]:
    """A small scale of opinion, as its value and as a threshold in its upper part."""
    found: list[LabelRole] = []
    has_others = any(column.is_binary and names.is_label_name(column.name) for column in log.columns.values())
    if has_others and roles.item is None and roles.user is None:
        return found
    for column in log.columns.values():
        if column.name in roles.left_out or column.is_binary or not names.is_rating_name(column.name):
            continue
        if not _is_scale(column) or _is_property(log, roles, column.name):
            continue
        assert column.tally is not None
        assert column.low is not None
        assert column.high is not None
        threshold = int(np.ceil(column.low + 0.7 * (column.high - column.low)))
        num_high = sum(count for value, count in column.tally.items() if float(value) >= threshold)
        found.append(LabelRole(column.name, "regression", None))
        if not any(label.name == "like" for label in found) and "like" not in log.columns:
            found.append(
                LabelRole(
                    column.name,
                    "binary",
                    None,
                    positive={"at_least": threshold},
                    name="like",
                    num_positive=num_high,
                    note="move the threshold to what you call liked",
                )
            )
    return found


def _is_scale(column: ColumnProfile) -> bool:
    """Whole or half steps, three to eleven of them, between 0 and 10."""
    if not is_number(column.type) or not column.tally or not 3 <= len(column.tally) <= MAX_SCALE_STEPS:
        return False
    return all(0 <= float(value) <= 10 and float(value) * 2 == round(float(value) * 2) for value in column.tally)


def _counts(log: LogProfile, roles: Roles) -> list[LabelRole]:
    """Outcomes that are counted, or written as 1 and 2: purchases 0, 1, 2, 3."""
    found = []
    for column in log.columns.values():
        is_candidate = names.is_label_name(column.name) and not names.is_id_name(column.name)
        if column.name in roles.left_out or column.is_binary or not is_candidate or column.num_infinite:
            continue
        if not is_whole(log.sample[column.name]) or column.low is None or column.high is None:
            continue
        if _is_property(log, roles, column.name):
            continue
        if (label := two_values(column)) is not None:
            found.append(label)
        elif column.low == 0 and column.high <= 1000:
            note = f"a count from 0 to {column.high:g}: any is 1"
            found.append(
                LabelRole(
                    column.name, "binary", None, positive={"above": 0}, num_positive=column.num_positive, note=note
                )
            )
    return found


def _named_values(log: LogProfile, roles: Roles) -> list[LabelRole]:
    """Two texts under the name of an outcome."""
    found = []
    for column in log.columns.values():
        if column.name in roles.left_out or column.is_binary or not is_text(column.type):
            continue
        label = two_values(column)
        if label is not None and names.is_label_name(column.name) and not _is_property(log, roles, column.name):
            found.append(label)
    return found


def _last_of_two_values(log: LogProfile, roles: Roles) -> list[LabelRole]:
    """The last column, where it holds two values: tables of surveys and contests end with their answer."""
    column = list(log.columns.values())[-1]
    label = None if column.name in roles.left_out else two_values(column)
    return [] if label is None else [label]


def _without_copies(log: LogProfile, roles: Roles, candidates: list[str], chosen: list[str]) -> list[str]:
    """The outcomes without those that say the same as an earlier one, or its opposite; the rest of them go as well."""
    kept: list[str] = []
    # Of two that say the same, the one that is called like an outcome stays.
    order = sorted(candidates, key=lambda name: (name not in chosen, not names.is_label_name(name)))
    for name in order:
        reason = next((reason for other in kept if (reason := _copy(log, name, other)) is not None), None)
        if reason is not None:
            roles.left_out[name] = reason
        elif name in chosen:
            kept.append(name)
    return [name for name in candidates if name in kept]


def _copy(log: LogProfile, name: str, other: str) -> str | None:
    outside, outside_other = log.num_positive_outside[name, other], log.num_positive_outside[other, name]
    column, known = log.columns[name], log.columns[other]
    if not outside and not outside_other:
        return f"equal to {other} in every row"
    is_opposite = outside == column.num_positive and outside_other == known.num_positive
    if is_opposite and column.num_positive + known.num_positive == column.num_rows:
        return f"1 - {other} in every row"
    return None


def _space(log: LogProfile, name: str, labels: list[str]) -> str | None:
    """The rarest outcome within which a column is filled."""
    outer = [label for label in labels if log.is_only_within(name, label)]
    return min(outer, key=lambda label: log.columns[label].num_positive, default=None)

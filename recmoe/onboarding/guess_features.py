"""guess_feature: as what kind of feature, and on which side, the model can read a column."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recmoe.features.layout import Side
from recmoe.onboarding import column_names as names
from recmoe.onboarding.profile import ColumnProfile, LogProfile
from recmoe.onboarding.roles import FeatureRole, Roles
from recmoe.onboarding.values import is_list, is_text, is_whole, numbers

SEPARATORS = ("|", ";", ",", " ")
MAX_FLAG_VALUES = 2
MIN_VALUES_OF_ID = 5
# As many buckets as a number has.
MANY_VALUES = 40


def guess_feature(log: LogProfile, roles: Roles, column: ColumnProfile) -> FeatureRole | str:
    """The feature made of a column, or the reason why there is none."""
    side = _side(log, roles, column.name)
    share_distinct = column.num_distinct / max(column.num_rows - column.num_nulls, 1)
    if is_list(column.type):
        if pa.types.is_floating(column.type.value_type) or is_list(column.type.value_type):
            return f"of type {column.type}: lists of ids can be read, vectors cannot"
        return FeatureRole(column.name, "id_list", side)
    if is_text(column.type):
        if _is_bracketed(log, column):
            return "lists written as text with brackets: write them as a|b|c, or as lists in Parquet"
        separator = _separator(log, column)
        if separator is not None:
            return FeatureRole(column.name, "id_list", side, separator=separator)
        if share_distinct > 0.95 and column.num_rows > 50:
            return "a new value in nearly every row: nothing to learn per value"
        if _is_free_text(log, column, share_distinct):
            return "free text: no feature reads it"
        return FeatureRole(column.name, "id", side)
    if pa.types.is_boolean(column.type) or column.is_binary or column.num_distinct <= MAX_FLAG_VALUES:
        note = "0 or 1: is it an outcome? then make it a task" if column.is_binary else ""
        return FeatureRole(column.name, "id", side, note=note)
    whole = is_whole(log.sample[column.name])
    if whole and not column.num_infinite:
        reason = _id_reason(log, roles, column)
        if reason is not None:
            if share_distinct > 0.95 and column.num_rows > 50:
                return "a new value in nearly every row: nothing to learn per value"
            return FeatureRole(column.name, "id", side, note=reason)
        if _is_row_number(column, share_distinct):
            return "numbers the rows"
    if column.low is None or column.high is None:
        return "no finite number in it"
    clip, note = _limits(log, column)
    if names.words(column.name) & names.POSITION_WORDS and side == "item":
        note = "; ".join([*([note] if note else []), "a place in a list? then the log's own order is learned with it"])
    return FeatureRole(column.name, "numeric", side, is_compressed=is_skewed(log, column), clip=clip, note=note)


def _id_reason(log: LogProfile, roles: Roles, column: ColumnProfile) -> str | None:
    """Why whole numbers are names of things; "" where their own name says so, None where they are numbers.

    An id read as a number loses everything, a number read as an id only its order. So what is called like neither
    is an id if its values repeat, and a value says nothing of its neighbours: the frequencies of neighbouring
    values are alike for prices and counts, and have nothing to do with each other for ids.
    """
    if names.is_id_name(column.name) or column.name in (roles.user, roles.item):
        return ""
    if names.is_number_name(column.name) or (column.low or 0) < 0 or column.num_distinct <= MAX_FLAG_VALUES:
        return None
    values, counts = np.unique(_finite(log, column.name), return_counts=True)
    if values.size < MIN_VALUES_OF_ID or counts.mean() < 2:
        return None
    has_gaps = values[-1] - values[0] + 1 >= 2 * values.size
    if values.size <= MANY_VALUES:
        # A number of few values has a bucket for each of them: it loses nothing either.
        return "few values with gaps: a number? then kind: numeric" if has_gaps and values[0] >= 100 else None
    frequencies = np.log(counts)
    likeness = np.corrcoef(frequencies[1:], frequencies[:-1])[0, 1] if np.ptp(frequencies) > 0 else 0.0
    return "values in no order: a number? then kind: numeric" if likeness < 0.5 else None


def _limits(log: LogProfile, column: ColumnProfile) -> tuple[tuple[float, float] | None, str]:
    """A clip where some numbers are infinite or dwarf all others by so much that nothing else would count."""
    assert column.low is not None
    assert column.high is not None
    values = np.abs(_finite(log, column.name))
    usual = float(np.quantile(values, 0.99)) if values.size else 0.0
    is_extreme = max(abs(column.low), abs(column.high)) > max(1e6 * usual, 1e9) or column.num_infinite
    if not is_extreme:
        return None, ""
    inner = _finite(log, column.name)
    inner = inner[np.abs(inner) <= max(1e3 * usual, 1.0)]
    low, high = (float(inner.min()), float(inner.max())) if inner.size else (0.0, 1.0)
    return (low, high if high > low else low + 1.0), f"clipped: {_extremes(column)}"


def _extremes(column: ColumnProfile) -> str:
    return f"{column.num_infinite} infinite" if column.num_infinite else f"from {column.low:g} to {column.high:g}"


def _finite(log: LogProfile, name: str) -> npt.NDArray[np.float64]:
    x_N = numbers(log.sample[name])
    return x_N[np.isfinite(x_N)]


def with_table(log: LogProfile, features: list[FeatureRole], feature: FeatureRole) -> FeatureRole:
    """Lists of ids, and numbers called after items, share the table of the id column in which their values occur."""
    words = names.words(feature.column)
    is_called_so = bool(words & names.ITEM_WORDS and words & names.NEIGHBOUR_WORDS)
    is_called_so &= words <= names.ITEM_WORDS | names.NEIGHBOUR_WORDS | {"id", "ids"}
    is_reference = feature.kind != "id_list" and is_called_so and is_whole(log.sample[feature.column])
    if feature.kind != "id_list" and not is_reference:
        return feature
    values = _values(log, feature)
    owners: list[tuple[int, float, str]] = []
    for owner in features:
        if (
            owner.kind != "id"
            or owner.column == feature.column
            or log.columns[owner.column].num_distinct < 5
            or not len(values)
        ):
            continue
        known = _values(log, owner)
        num_known = pc.sum(pc.is_in(values, known)).as_py()
        if num_known > 0.9 * len(values):
            num_common_words = len(_stems(feature.column) & _stems(owner.column))
            owners.append((num_common_words, num_known / len(known), owner.column))
    if not owners:
        return feature
    return replace(feature, kind="id_list" if feature.kind == "id_list" else "id", table=max(owners)[2])


def _stems(name: str) -> set[str]:
    return {word.removesuffix("s") for word in names.words(name)} - {"id"}


def _values(log: LogProfile, feature: FeatureRole) -> pa.Array:
    """The different ids of a column's sample, as text."""
    column = log.sample[feature.column].combine_chunks()
    if feature.separator is not None:
        column = pc.split_pattern(column.cast(pa.large_string()), feature.separator)
    if is_list(column.type):
        column = column.flatten()
    if pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        column = pa.array(numbers(column)[~np.isnan(numbers(column))].astype(np.int64))
    return pc.drop_null(pc.unique(column.cast(pa.large_string())))


def _side(log: LogProfile, roles: Roles, name: str) -> Side:
    words = names.words(name)
    if name == roles.item:
        return "item"
    if name == roles.user or (roles.user is not None and log.is_constant_within(name, roles.user)):
        return "user"
    if roles.is_group_a_list and roles.group is not None:
        return "context" if log.is_constant_within(name, roles.group) else "item"
    if roles.item is not None and log.is_constant_within(name, roles.item):
        return "item"
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


def _is_bracketed(log: LogProfile, column: ColumnProfile) -> bool:
    return bool(pc.all(pc.match_substring_regex(_texts(log, column.name), r"^\[.*\]$")).as_py())


def _is_free_text(log: LogProfile, column: ColumnProfile, share_distinct: float) -> bool:
    texts = _texts(log, column.name)
    num_words = pc.mean(pc.add(pc.count_substring(texts, " "), 1)).as_py() or 0.0
    return bool(num_words >= 4 and share_distinct > 0.3)


def _is_row_number(column: ColumnProfile, share_distinct: float) -> bool:
    if column.low is None or column.high is None or share_distinct < 0.95 or column.num_rows <= 50:
        return False
    return column.high - column.low < 1.05 * column.num_rows


def is_skewed(log: LogProfile, column: ColumnProfile) -> bool:
    """Whether the largest values dwarf most: amounts, counts, prices."""
    if column.low is None or column.low < 0:
        return False
    values = _finite(log, column.name)
    values = values[values > 0]
    return bool(values.size and np.quantile(values, 0.99) > 5 * np.quantile(values, 0.5))

"""split_rule: which rows of a log are for training, validation and test."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recmoe.errors import DataError
from recmoe.onboarding.profile import LogProfile
from recmoe.onboarding.roles import Roles
from recmoe.onboarding.times import increasing
from recmoe.onboarding.values import hashes

SplitBy = Literal["auto", "time", "random", "user", "list"]
Shares = tuple[float, float, float]
"""Of the rows, for training, validation and test."""
DEFAULT_SHARES: Shares = (0.8, 0.1, 0.1)
MIN_SPLIT_SHARE = 0.2
"""The least a split may have, as a share of what it was meant to have."""

Codes = npt.NDArray[np.int64]
SplitRule = Callable[[pa.Table, int], Codes]
"""(rows, number of the first) → per row 0 for train, 1 for validation, 2 for test."""


def split_rule(
    log: LogProfile, roles: Roles, *, by: SplitBy = "auto", shares: Shares = DEFAULT_SHARES, seed: int
) -> tuple[SplitRule, str]:
    """How rows are shared out, and the same in words.

    Raises:
        DataError: shares that are none, or a way to split that the log has no column for.
    """
    if min(shares) <= 0 or abs(sum(shares) - 1.0) > 1e-6:
        raise DataError(f"--shares: three parts above 0 that sum to 1 are needed, such as 0.8,0.1,0.1; got {shares}")
    ends = (shares[0], shares[0] + shares[1])
    if roles.time is not None and by in ("auto", "time"):
        by_time = _time_rule(log, roles.time, ends, min(shares))
        if by_time is not None:
            return by_time, f"by {roles.time}: the last rows are the test"
        if by == "time":
            raise DataError(f"--split time: {roles.time} is too coarse to cut off the last {shares[2]:.0%} of the rows")
    if by == "time":
        raise DataError("--split time: no column with the time of the row was found; it must be filled in every row")
    if by in ("auto", "list") and roles.group is not None and roles.is_group_a_list:
        return _group_rule(roles.group, ends, seed), f"by {roles.group}, at random, whole lists together"
    if by == "list":
        raise DataError("--split list: no column that names the list of a row was found, such as request_id")
    if by == "user":
        if roles.user is None:
            raise DataError("--split user: no column that names the user was found, such as user_id")
        return _group_rule(roles.user, ends, seed), f"by {roles.user}, at random, all rows of a user together"
    return _row_rule(ends, seed), "by rows, at random"


def _time_rule(log: LogProfile, column: str, ends: tuple[float, float], least: float) -> SplitRule | None:
    """None where time is too coarse to cut off a part at the end."""
    times = np.sort(increasing(log.sample, column))
    first_validation, first_test = (times[int(share * times.size)] for share in ends)

    def rule(rows: pa.Table, _first_row: int) -> Codes:
        time_N = increasing(rows, column)
        return np.asarray((time_N >= first_validation).astype(np.int64) + (time_N >= first_test))

    shares = np.bincount(rule(log.sample, 0), minlength=3) / log.sample.num_rows
    return rule if shares.min() >= MIN_SPLIT_SHARE * least else None


def _group_rule(column: str, ends: tuple[float, float], seed: int) -> SplitRule:
    def rule(rows: pa.Table, first_row: int) -> Codes:
        group_N = hashes(rows[column].combine_chunks())
        is_null_N = pc.is_null(rows[column]).to_numpy()
        row_N = np.arange(first_row, first_row + rows.num_rows, dtype=np.uint64)
        return _cut(np.where(is_null_N, row_N, group_N), ends, seed)

    return rule


def _row_rule(ends: tuple[float, float], seed: int) -> SplitRule:
    def rule(rows: pa.Table, first_row: int) -> Codes:
        return _cut(np.arange(first_row, first_row + rows.num_rows, dtype=np.uint64), ends, seed)

    return rule


def _cut(key_N: npt.NDArray[np.uint64], ends: tuple[float, float], seed: int) -> Codes:
    """Keys to splits, in the given shares, the same for equal keys."""
    # The finaliser of SplitMix64 (Steele et al. 2014) makes neighbours independent.
    mixed_N = key_N + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    share_N = (mixed_N ^ (mixed_N >> np.uint64(31))).astype(np.float64) / 2.0**64
    return (share_N >= ends[0]).astype(np.int64) + (share_N >= ends[1])

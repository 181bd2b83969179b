"""starter_config: from anybody's log to splits and a commented config that trains as it stands."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recmoe.data.parquet import ParquetStream
from recmoe.data.splits import SPLITS, Split, SplitWriter
from recmoe.errors import DataError
from recmoe.onboarding.guess_roles import guess_roles
from recmoe.onboarding.profile import CHUNK_ROWS, LogProfile, hashes, is_text, is_time, profile_log, times_of_text
from recmoe.onboarding.roles import Roles
from recmoe.onboarding.starter_yaml import starter_yaml

SHARES = (0.8, 0.9)
"""Ends of train and of validation, as shares of the log."""
MIN_ROWS = 100
MIN_SPLIT_SHARE = 0.02

Codes = npt.NDArray[np.int64]
SplitRule = Callable[[pa.Table, int], Codes]
"""(rows, number of the first) → per row 0 for train, 1 for validation, 2 for test."""


@dataclass(frozen=True)
class StarterConfig:
    """What was found in a log, and what was made of it."""

    text: str
    """The config."""
    path: Path | None
    """Where it was written; None if it was only asked for."""
    num_rows: dict[Split, int]
    roles: Roles


def starter_config(files: Sequence[Path], *, output_dir: Path | None, seed: int = 0) -> StarterConfig:
    """Look at a log, split it 80/10/10 and write a commented ``config.yaml`` beside the splits.

    The log is read twice, chunk by chunk. The split is by time if there is a time column; else by lists, if the
    log has them; else by rows.

    Args:
        files: Parquet and CSV files, folders or globs, all with the same columns.
        output_dir: where config and splits go; None only makes the text.
        seed: of the split, where it is not by time.

    Raises:
        DataError: a file that cannot be read, too few rows, no label, a config that is there already.
        SchemaError: the files have different columns.
    """
    if output_dir is not None and (output_dir / "config.yaml").exists():
        raise DataError(f"{output_dir / 'config.yaml'} exists already; remove it or choose another folder")
    if not files:
        raise DataError("no files are given; name the Parquet or CSV files of the log")
    with tempfile.TemporaryDirectory(dir=_made(output_dir), prefix=".csv-") as cache_dir:
        stream = ParquetStream([str(file) for file in files], seed=seed, shuffle_rows=None, cache_dir=Path(cache_dir))
        if stream.num_rows < MIN_ROWS:
            raise DataError(
                f"{stream.num_rows} rows are too few to split and to learn from; at least {MIN_ROWS} are needed"
            )
        log = profile_log(stream)
        roles = guess_roles(log)
        _check(log, roles)
        rule, split_note = _split_rule(log, roles, seed)
        num_rows = _write(stream, rule, output_dir)
    name = output_dir.resolve().name if output_dir is not None else Path(files[0]).name.split(".")[0]
    text = starter_yaml(log, roles, num_rows, split_note=split_note, name=name)
    if output_dir is None:
        return StarterConfig(text, None, num_rows, roles)
    path = output_dir / "config.yaml"
    path.write_text(text)
    return StarterConfig(text, path, num_rows, roles)


def _made(folder: Path | None) -> Path | None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _check(log: LogProfile, roles: Roles) -> None:
    columns = ", ".join(f"{column.name} ({column.type})" for column in log.columns.values())
    if not any(label.space is None for label in roles.labels):
        raise DataError(f"no column of the log can be a label: one that holds 0 and 1 is needed; found {columns}")
    if not roles.features:
        raise DataError(f"no column of the log can be a feature; found {columns}, left out {roles.left_out}")


def _split_rule(log: LogProfile, roles: Roles, seed: int) -> tuple[SplitRule, str]:
    """How rows are shared out, and the same in words."""
    if roles.time is not None:
        by_time = _time_rule(log, roles.time)
        if by_time is not None:
            return by_time, f"by {roles.time}: the last rows are the test"
    if roles.group is not None and roles.is_group_a_list:
        return _group_rule(roles.group, seed), f"by {roles.group}, at random, whole lists together"
    return _row_rule(seed), "by rows, at random"


def _time_rule(log: LogProfile, column: str) -> SplitRule | None:
    """None where time is too coarse to cut off a tenth at the end."""
    times = np.sort(_times(log.sample, column))
    first_validation, first_test = (times[int(share * times.size)] for share in SHARES)

    def rule(rows: pa.Table, _first_row: int) -> Codes:
        time_N = _times(rows, column)
        return np.asarray((time_N >= first_validation).astype(np.int64) + (time_N >= first_test))

    shares = np.bincount(rule(log.sample, 0), minlength=3) / log.sample.num_rows
    return rule if shares.min() >= MIN_SPLIT_SHARE else None


def _times(rows: pa.Table, column: str) -> npt.NDArray[np.float64]:
    """Increasing numbers; a missing time is the earliest.

    Raises:
        DataError: a text that is no time.
    """
    values = rows[column]
    try:
        values = times_of_text(values) if is_text(values.type) else values
    except pa.ArrowInvalid as error:
        raise DataError(f"column {column} holds times as text, but not in every row: {error}") from error
    if is_time(values.type):
        values = (values.cast(pa.timestamp("us")) if pa.types.is_date(values.type) else values).cast(pa.int64())
    time_N: npt.NDArray[np.float64] = np.nan_to_num(
        pc.fill_null(values.cast(pa.float64(), safe=False), -np.inf).to_numpy(), nan=-np.inf
    )
    return time_N


def _group_rule(column: str, seed: int) -> SplitRule:
    def rule(rows: pa.Table, first_row: int) -> Codes:
        group_N = hashes(rows[column].combine_chunks())
        is_null_N = pc.is_null(rows[column]).to_numpy()
        row_N = np.arange(first_row, first_row + rows.num_rows, dtype=np.uint64)
        return _cut(np.where(is_null_N, row_N, group_N), seed)

    return rule


def _row_rule(seed: int) -> SplitRule:
    def rule(rows: pa.Table, first_row: int) -> Codes:
        return _cut(np.arange(first_row, first_row + rows.num_rows, dtype=np.uint64), seed)

    return rule


def _cut(key_N: npt.NDArray[np.uint64], seed: int) -> Codes:
    """Keys to splits, in the given shares, the same for equal keys."""
    # The finaliser of SplitMix64 (Steele et al. 2014) makes neighbours independent.
    mixed_N = key_N + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    share_N = (mixed_N ^ (mixed_N >> np.uint64(31))).astype(np.float64) / 2.0**64
    return (share_N >= SHARES[0]).astype(np.int64) + (share_N >= SHARES[1])


def _write(stream: ParquetStream, rule: SplitRule, folder: Path | None) -> dict[Split, int]:
    """Share out the rows; only counts them without a folder."""
    num_rows: dict[Split, int] = dict.fromkeys(SPLITS, 0)
    first_row = 0
    with nullcontext() if folder is None else SplitWriter(folder, stream.arrow_schema) as writer:
        for rows in stream.chunks(batch_size=CHUNK_ROWS):
            code_N = rule(rows, first_row)
            first_row += rows.num_rows
            for code, split in enumerate(SPLITS):
                num_rows[split] += int((code_N == code).sum())
                if writer is not None:
                    writer.write(split, rows.filter(pa.array(code_N == code)))
    return num_rows

"""starter_config: from anybody's log to splits and a commented config that trains as it stands."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from recmoe.config import Config, config_from_dict
from recmoe.data.loader import DataConfig
from recmoe.data.parquet import ParquetStream
from recmoe.data.splits import SPLITS, Split, SplitWriter
from recmoe.errors import DataError, RecmoeError
from recmoe.onboarding.event_log import event_log_advice
from recmoe.onboarding.guess_roles import guess_roles
from recmoe.onboarding.new_folder import new_folder
from recmoe.onboarding.profile import CHUNK_ROWS, LogProfile, profile_log
from recmoe.onboarding.roles import FOUND, Owners, Roles
from recmoe.onboarding.split_rule import DEFAULT_SHARES, Shares, SplitBy, SplitRule, split_rule
from recmoe.onboarding.starter_yaml import starter_yaml
from recmoe.onboarding.values import is_number, numbers
from recmoe.onboarding.yaml_text import shown

MIN_ROWS = 100


class _Log(Config):
    """The files of a log, in the form in which configs name files."""

    data: DataConfig
    """Where the rows are and how they are read."""


@dataclass(frozen=True)
class StarterConfig:
    """What was found in a log, and what was made of it."""

    text: str
    """The config."""
    path: Path | None
    """Where it was written; None if it was only asked for."""
    num_rows: dict[Split, int]
    roles: Roles
    skipped: tuple[str, ...] = ()
    """What of the log could not be read and was left out."""

    @property
    def warnings(self) -> list[str]:
        """What of the log was left out and may be needed."""
        doubtful = [f"{shown(name)}: {self.roles.left_out[name]}" for name in self.roles.doubtful]
        return [f"left out: {reason}" for reason in (*self.skipped, *doubtful)]


def starter_config(
    files: Sequence[Path],
    *,
    reading: Sequence[str] = (),
    output_dir: Path | None,
    seed: int = 0,
    split_by: SplitBy = "auto",
    shares: Shares = DEFAULT_SHARES,
    labels: Sequence[str] = (),
    leave_out: Sequence[str] = (),
    owners: Owners = FOUND,
    verify: Callable[[Path], None] | None = None,
) -> StarterConfig:
    """Look at a log, split it and write a commented ``config.yaml`` beside the splits.

    The log is read twice, chunk by chunk. By default the split is by time if there is a time column; else by lists,
    if the log has them; else by rows.

    Args:
        files: Parquet and CSV files, folders or globs, all with the same columns.
        reading: how they are read: overrides such as ``data.on_error=skip``.
        output_dir: where config and splits go, all of them or none; None only makes the text.
        seed: of the split, where it is not by time.
        split_by: what rows are split by.
        shares: of the rows, for training, validation and test.
        labels: outcomes beside those that are found: a column, ``income=high``, ``rating>=4``.
        leave_out: columns that are neither features nor labels.
        owners: the columns that name list, item and user of a row; those that are found by default.
        verify: is called with the config before it gets its place; what it raises keeps it from there.

    Raises:
        DataError: a file that cannot be read, too few rows, no label, a config that is there already, or one that
            ``verify`` refuses.
        SchemaError: the files have different columns.
        ConfigError: ``reading`` is not understood.
    """
    if output_dir is not None and (output_dir / "config.yaml").exists():
        raise DataError(f"{output_dir / 'config.yaml'} exists already; remove it or choose another folder")
    data = _data(files, reading)
    with nullcontext() if output_dir is None else new_folder(output_dir) as folder:
        name = output_dir.resolve().name if output_dir is not None else Path(files[0]).name.split(".")[0]
        starter = _starter(
            data,
            folder,
            name=name,
            split=lambda log, roles: split_rule(log, roles, by=split_by, shares=shares, seed=seed),
            guess=lambda log: guess_roles(log, labels=labels, leave_out=leave_out, owners=owners),
        )
        if folder is not None and verify is not None:
            try:
                verify(folder / "config.yaml")
            except RecmoeError as error:
                reason = str(error).replace(str(folder), str(output_dir))
                raise DataError(
                    f"training could not read what init would write, so nothing was written: {reason}"
                ) from error
    path = None if output_dir is None else output_dir / "config.yaml"
    return replace(starter, path=path)


def split_log(
    files: Sequence[Path],
    *,
    reading: Sequence[str] = (),
    output_dir: Path,
    seed: int = 0,
    split_by: SplitBy = "auto",
    shares: Shares = DEFAULT_SHARES,
) -> dict[Split, int]:
    """Share out the rows as ``starter_config`` does, for a config that is there already; their numbers by split.

    Raises:
        DataError: a file that cannot be read, too few rows, or a way to split that the log has no column for.
        SchemaError: the files have different columns.
        ConfigError: ``reading`` is not understood.
    """
    data = _data(files, reading)
    with new_folder(output_dir) as folder, tempfile.TemporaryDirectory(dir=folder, prefix=".csv-") as cache_dir:
        stream = _opened(data, Path(cache_dir))
        log = profile_log(stream)
        rule, _ = split_rule(log, guess_roles(log), by=split_by, shares=shares, seed=seed)
        num_rows, _ = _write(stream, rule, folder)
    return num_rows


def _data(files: Sequence[Path], reading: Sequence[str]) -> DataConfig:
    if not files:
        raise DataError("no files are given; name the Parquet or CSV files of the log")
    document = {"data": {"train": [str(file) for file in files]}}
    return config_from_dict(_Log, document, overrides=reading, source="command line").data


def _opened(data: DataConfig, cache_dir: Path) -> ParquetStream:
    stream = data.build("train", seed=0, cache_dir=cache_dir)
    if stream.num_rows < MIN_ROWS:
        raise DataError(
            f"{stream.num_rows} rows are too few to split and to learn from; at least {MIN_ROWS} are needed"
        )
    return stream


def _starter(
    data: DataConfig,
    folder: Path | None,
    *,
    name: str,
    split: Callable[[LogProfile, Roles], tuple[SplitRule, str]],
    guess: Callable[[LogProfile], Roles],
) -> StarterConfig:
    """Read the log and write splits and config into the folder."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".csv-") as cache_dir:
        stream = _opened(data, Path(cache_dir))
        log = profile_log(stream)
        roles = guess(log)
        _check(log, roles)
        rule, split_note = split(log, roles)
        num_rows, num_known = _write(stream, rule, folder)
        skipped = (*stream.skipped, *_skipped_rows(stream.num_skipped_rows))
    _leave_out_unknown(roles, num_known)
    _check(log, roles)
    reading = data.model_dump(
        mode="json", exclude_unset=True, exclude_none=True, exclude={"train", "validation", "test"}
    )
    text = starter_yaml(log, roles, num_rows, split_note=split_note, name=name, reading=reading)
    if folder is not None:
        (folder / "config.yaml").write_text(text, encoding="utf-8")
    return StarterConfig(text, None, num_rows, roles, skipped)


def _skipped_rows(count: int) -> list[str]:
    return [f"{count:,} damaged row{'s' if count > 1 else ''}"] if count else []


def _leave_out_unknown(roles: Roles, num_known: dict[str, int]) -> None:
    """Columns without a value among the training rows teach nothing."""
    reason = "no value among the training rows: it begins later in the log"
    unknown = {name for name, count in num_known.items() if count == 0}
    gone = {label.column for label in roles.labels if label.column in unknown or label.space in unknown}
    gone |= {feature.column for feature in roles.features if feature.column in unknown or feature.table in unknown}
    roles.labels = [label for label in roles.labels if label.column not in gone]
    roles.features = [feature for feature in roles.features if feature.column not in gone]
    roles.left_out |= dict.fromkeys(sorted(gone), reason)
    roles.group = None if roles.group in gone else roles.group
    roles.item = None if roles.item in gone else roles.item


def _check(log: LogProfile, roles: Roles) -> None:
    columns = ", ".join(f"{shown(column.name)} ({column.type})" for column in log.columns.values())
    if not any(label.space is None for label in roles.labels):
        advice = event_log_advice(log) or _header_advice(log)
        raise DataError(
            f"no column of the log can be a label: one that holds 0 and 1 is needed, or no and yes, or a rating; name "
            f"it as in --label income=high or --label rating>=4; found {columns}{advice}"
        )
    if not roles.features:
        raise DataError(f"no column of the log can be a feature; found {columns}, left out {roles.left_out}")


def _header_advice(log: LogProfile) -> str:
    """What to do about a first row that was taken for names, or a file of which all cells are one."""
    if len(log.columns) == 1:
        return ". All of a row is in one column: is its separator another one?"
    looks_like_values = sum(name.lstrip("-").replace(".", "", 1).isdigit() for name in log.columns)
    if looks_like_values >= 0.3 * len(log.columns):
        return ". The names look like values: does the first line of the file hold no names?"
    return ""


def _write(stream: ParquetStream, rule: SplitRule, folder: Path | None) -> tuple[dict[Split, int], dict[str, int]]:
    """Share out the rows; only counts them without a folder.

    Returns:
        num_rows: by split.
        num_known: values among the training rows, by column; numbers must be finite.
    """
    num_rows: dict[Split, int] = dict.fromkeys(SPLITS, 0)
    num_known = dict.fromkeys(stream.arrow_schema.names, 0)
    first_row = 0
    with nullcontext() if folder is None else SplitWriter(folder, stream.arrow_schema) as writer:
        for rows in stream.chunks(batch_size=CHUNK_ROWS):
            code_N = rule(rows, first_row)
            first_row += rows.num_rows
            for code, split in enumerate(SPLITS):
                part = rows.filter(pa.array(code_N == code))
                num_rows[split] += part.num_rows
                if split == "train":
                    for name in num_known:
                        num_known[name] += _num_known(part[name])
                if writer is not None:
                    writer.write(split, part)
    return num_rows, num_known


def _num_known(column: pa.ChunkedArray) -> int:
    if is_number(column.type):
        return int(np.isfinite(numbers(column)).sum())
    return int(len(column) - column.null_count)

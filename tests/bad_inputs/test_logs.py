"""A wrong log stops a run before the training, with file, column and row; mended, the same run goes on."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

Command = Callable[..., Any]
Values = list[Any]


@pytest.mark.parametrize(
    ("split", "column", "change", "message"),
    [
        (
            "train",
            "price",
            lambda values: [f"{value} CHF" for value in values],
            "{file}: column 'price' of feature 'price': expected a number, found string; "
            "convert the column, or declare it as kind: id",
        ),
        (
            "train",
            "interests",
            lambda values: list(range(len(values))),
            "{file}: column 'interests' of feature 'interests': expected a list of ids, found int64; "
            "declare it as kind: numeric, or as kind: id where its numbers are names",
        ),
        (
            "train",
            "click",
            lambda values: [2 if row == 321 else value for row, value in enumerate(values)],
            "{file}, row 321 of the file: label column 'click' holds 2 in row 321; a binary label is 0, 1, true, "
            "false or null: mend it, say with positive: which values count as 1, or declare a regression task",
        ),
        (
            "validation",
            "click",
            lambda values: [0.5 if row == 21 else float(value) for row, value in enumerate(values)],
            "{file}, row 21 of the file: label column 'click' holds 0.5 in row 21; a binary label is 0, 1, true, "
            "false or null: mend it, say with positive: which values count as 1, or declare a regression task",
        ),
    ],
)
def test_wrong_column_is_named_with_its_file_before_the_training(
    train: Command,
    log: Path,
    spoil: Command,
    split: str,
    column: str,
    change: Callable[[Values], Values],
    message: str,
) -> None:
    file = log / f"{split}.parquet"
    spoil(file, column, change)

    result = train(log / "config.yaml", "--run-dir", log / "run")

    assert (result.code, result.out) == (1, "")
    assert result.errors == f"error: {message.format(file=file)}\n"
    assert not (log / "run" / "checkpoints").exists()


def test_conversion_without_its_click_is_named_with_its_row(train: Command, log: Path, spoil: Command) -> None:
    file = log / "train.parquet"
    row = pq.read_table(file)["click"].to_pylist().index(0)
    spoil(file, "purchase", lambda values: [*values[:row], 1, *values[row + 1 :]])

    result = train(log / "config.yaml", "--run-dir", log / "run")

    assert result.code == 1
    assert result.errors == (
        f"error: {file}, row {row} of the file: conversion without its click: 1 row with purchase > 0 where click = 0, "
        f"first in row {row}; mend the log, or do not make click the space of a task on purchase\n"
    )


def test_mended_log_goes_on_in_the_same_folder(train: Command, log: Path, shared_log: Path, spoil: Command) -> None:
    spoil(log / "train.parquet", "click", lambda values: [9, *values[1:]])
    arguments = (log / "config.yaml", "--run-dir", log / "run")
    assert train(*arguments).code == 1
    shutil.copy(shared_log / "train.parquet", log)

    again = train(*arguments)
    resumed = train(*arguments, "--resume")

    assert again.errors == f"error: {log}/run holds a run already; go on with --resume or choose another --run-dir\n"
    assert (resumed.code, resumed.errors) == (0, "")
    assert f"bundle   {log}/run/bundle" in resumed.out


def test_missing_column_is_named_with_what_the_file_holds(train: Command, log: Path) -> None:
    file = log / "train.parquet"
    table = pq.read_table(file)
    names = ["cost" if name == "price" else name for name in table.column_names]
    pq.write_table(table.rename_columns(names), file)

    result = train(log / "config.yaml", "--run-dir", log / "run")

    assert result.code == 1
    assert result.errors.startswith(f"error: {file}: column 'price' is missing, needed by feature 'price'; ")
    assert result.errors.endswith(f"found: {', '.join(names)}\n")


def test_id_out_of_its_table_is_named_and_a_larger_table_goes_on(train: Command, log: Path) -> None:
    index = "inputs.features.hour={{kind: id, side: context, encoding: {{kind: index, num_ids: {}}}}}"
    hours = pq.read_table(log / "train.parquet")["hour"].to_pylist()
    row = next(row for row, hour in enumerate(hours) if hour >= 12)
    arguments = (log / "config.yaml", "--run-dir", log / "run")

    result = train(*arguments, index.format(12))
    resumed = train(*arguments, index.format(24), "--resume")

    assert result.code == 1
    assert result.errors == (
        f"error: {log}/train.parquet, row {row} of the file: column 'hour' of feature 'hour': id {hours[row]} is not "
        "one of the 12 row numbers 0 … 11; raise encoding.num_ids, or set encoding.out_of_range: unknown\n"
    )
    assert resumed.code == 0, resumed.errors


@pytest.mark.parametrize("split", ["train", "validation"])
def test_empty_split_is_named(train: Command, log: Path, split: str) -> None:
    file = log / f"{split}.parquet"
    pq.write_table(pq.read_table(file).slice(0, 0), file)

    result = train(log / "config.yaml", "--run-dir", log / "run")

    assert result.code == 1
    assert result.errors == (
        f"error: the split is empty: no rows in {file} (1 files, 0 of them unreadable, 0 rows skipped); "
        "name files with rows under data\n"
    )


def test_file_that_is_not_there_is_named(train: Command, log: Path) -> None:
    (log / "validation.parquet").unlink()

    result = train(log / "config.yaml", "--run-dir", log / "run")

    assert result.code == 1
    assert result.errors.startswith(f"error: no data file matches '{log}/validation.parquet'; there is no such file")


def test_cut_file_is_named_or_left_out_and_counted(train: Command, log: Path, shared_log: Path) -> None:
    cut = log / "cut.parquet"
    cut.write_bytes((shared_log / "train.parquet").read_bytes()[:5000])
    files = f"data.train=[{log}/train.parquet, {cut}]"
    arguments = (log / "config.yaml", files, "--run-dir", log / "run")

    failed = train(*arguments)
    resumed = train(*arguments, "data.on_error=skip", "--resume")

    assert failed.code == 1
    assert failed.errors.startswith(f"error: {cut}: not a readable Parquet file (")
    assert failed.errors.endswith("; if it is cut or damaged, write it anew, or set data.on_error to skip\n")
    assert resumed.code == 0
    told = "0 rows and 1 files that cannot be read (data.on_error: skip); 800 rows remain"
    assert resumed.errors.startswith(f"warning: left out: {cut}: not a readable Parquet file (")
    assert f"warning: train: left out {told}\n" in resumed.errors
    assert f"skipped  train: {told}\n" in resumed.out


def test_corrupt_rows_are_named_or_left_out_and_counted(
    recmoe: Command, train: Command, log: Path, spoil: Command
) -> None:
    file = log / "train.parquet"
    spoil(file, "click", lambda values: values)
    content = bytearray(file.read_bytes())
    column = pq.read_schema(file).names.index("click")
    start = pq.read_metadata(file).row_group(2).column(column).data_page_offset
    content[start : start + 40] = b"\xff" * 40
    file.write_bytes(content)

    failed = train(log / "config.yaml", "--run-dir", log / "run")
    skipped = train(log / "config.yaml", "data.on_error=skip", "--run-dir", log / "run", "--resume", "--json")
    checked = recmoe("data", "check", log / "config.yaml", "data.on_error=skip")

    assert failed.code == 1
    assert failed.errors.startswith(f"error: {file}: cannot read row group 2 (")
    assert failed.errors.endswith("; if the file is damaged, write it anew, or set data.on_error to skip\n")
    assert failed.errors.count("\n") == 1
    assert skipped.code == 0
    assert f"warning: {file}: row group 2 left out, 100 rows: " in skipped.errors
    assert "100 rows and 0 files that cannot be read (data.on_error: skip); 700 rows remain" in skipped.out
    assert "warning: train: 100 rows and 0 files were skipped as damaged\n" in checked.out

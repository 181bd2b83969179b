"""``recmoe init``: from anybody's log to splits and a config that trains as it stands."""

import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from recmoe.cli.options import Seed
from recmoe.cli.output import print_columns
from recmoe.errors import DataError

if TYPE_CHECKING:
    from recmoe.onboarding.starter import StarterConfig


class SplitName(StrEnum):
    """What the rows of a log can be split by."""

    auto = "auto"
    time = "time"
    random = "random"
    user = "user"
    list = "list"


def init(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES... [KEY=VALUE...]",
            help="Parquet, CSV, JSON lines; folders, globs. Keys such as data.on_error=skip say how to read them.",
        ),
    ],
    target: Annotated[
        Path | None, typer.Option("--to", help="Folder for splits and config.yaml; only shows the config without it.")
    ] = None,
    split: Annotated[
        SplitName,
        typer.Option(help="What rows are split by; auto is by time where the log has it, else by lists, else by rows."),
    ] = SplitName.auto,
    shares: Annotated[
        str, typer.Option(metavar="TRAIN,VALIDATION,TEST", help="Shares of the rows for each split.")
    ] = "0.8,0.1,0.1",
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN[=VALUE]",
            help="An outcome that is not found by itself: a column, income=high, rating>=4, visits>0; may be repeated.",
        ),
    ] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="A column the model must not read; may be repeated.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Names the list that a row was shown in, such as a request.")
    ] = None,
    item: Annotated[str | None, typer.Option(metavar="COLUMN", help="Names the candidate of a row.")] = None,
    user: Annotated[str | None, typer.Option(metavar="COLUMN", help="Names the user of a row.")] = None,
    seed: Seed = 0,
) -> None:
    """Look at anybody's log, and write splits and a commented config that trains as it stands."""
    from recmoe.onboarding.roles import Owners
    from recmoe.onboarding.starter import starter_config

    warnings: list[str] = []
    reading = list(filter(_is_override, files))
    with _stopped_by_sigterm():
        starter = starter_config(
            [Path(file) for file in files if file not in reading],
            reading=reading,
            output_dir=target,
            seed=seed,
            split_by=split.value,
            shares=_parsed_shares(shares),
            labels=label or [],
            leave_out=leave_out or [],
            owners=Owners(group=group, item=item, user=user),
            verify=lambda config: warnings.extend(_checked(config)),
        )
    _print_result(starter, warnings)


def _print_result(starter: "StarterConfig", warnings: list[str]) -> None:
    if starter.path is None:
        print(starter.text)
        return
    print_columns(["split", "rows"], list(starter.num_rows.items()))
    for warning in (*starter.warnings, *warnings):
        print(f"warning: {warning}")
    print(f"\nwrote {starter.path}: read it, then")
    print(f"      recmoe train {starter.path} --run-dir runs/{starter.path.resolve().parent.name}")


def _is_override(argument: str) -> bool:
    return argument.startswith("data.") and "=" in argument and not Path(argument).exists()


def _checked(config: Path) -> tuple[str, ...]:
    """Warnings of ``recmoe data check``; what training could not read is an error."""
    from recmoe.experiment import load_experiment
    from recmoe.runs.check import check_data

    with tempfile.TemporaryDirectory(prefix="recmoe-") as folder:
        found = check_data(load_experiment(config), cache_dir=Path(folder))
    return (*found.leaks.warnings, *found.warnings)


def _parsed_shares(text: str) -> tuple[float, float, float]:
    try:
        train, validation, test = (float(part) for part in text.split(","))
    except ValueError:
        raise DataError(f"--shares {text}: three numbers with commas are needed, such as 0.8,0.1,0.1") from None
    return train, validation, test


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does, so that what is half-made is removed."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

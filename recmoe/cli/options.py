"""Arguments and options that several commands share, under one name and with one help text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Seed = Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")]
Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the experiment.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Values that replace those of the config, by key path."),
]
Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="models:/NAME@ALIAS, models:/NAME/VERSION, a run folder or a bundle."),
]
ModelOption = Annotated[
    str, typer.Option("--model", help="models:/NAME@ALIAS, models:/NAME/VERSION, a run folder or a bundle.")
]
Score = Annotated[str | None, typer.Option(help="Score formula to use, by name; the config's default otherwise.")]
RegistryUri = Annotated[
    str | None,
    typer.Option("--registry", help="MLflow URI; by default MLFLOW_TRACKING_URI, else runs/mlflow.db."),
]
DeltaOf = Annotated[
    str | None,
    typer.Option(
        "--delta-of",
        metavar="VERSION",
        help="Send only what differs from this version: an alias or a number of the same model, or models:/…. A "
        "machine that has it fetches only that. Where it is more than half, the bundle is sent whole.",
    ),
]
StrictFields = Annotated[
    bool,
    typer.Option("--strict-fields", help="Refuse fields that the model does not know, instead of a warning."),
]
WarmStartFrom = Annotated[
    str | None,
    typer.Option(
        "--warm-start",
        metavar="MODEL",
        help="Go on from an earlier model: models:/NAME@ALIAS, models:/NAME/VERSION, a run folder or a bundle.",
    ),
]
RunDir = Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME by default.", file_okay=False)]
Strict = Annotated[
    bool, typer.Option("--strict", help="Stop where a feature may know the answer (a leak), rather than warn.")
]
Resume = Annotated[bool, typer.Option("--resume/--no-resume", help="Go on with the run in the folder.")]
Workers = Annotated[
    str | None,
    typer.Option(
        help="Train in that many Ray workers, or in as many as there is room for, such as 2:8; in this process by "
        "default. RAY_ADDRESS names a cluster."
    ),
]
ShowAll = Annotated[bool, typer.Option("--all", help="Print every number, not one line per task.")]


def with_expanded(patterns: Sequence[str] | None, overrides: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The files of an option and the overrides, as they were meant.

    A pattern without quotes is expanded by the shell: its first file follows the option, the others stand among the
    overrides. So what is there as a file or folder is one.
    """
    extra = [argument for argument in overrides or [] if patterns and Path(argument).exists()]
    return [*(patterns or []), *extra], [argument for argument in overrides or [] if argument not in extra]

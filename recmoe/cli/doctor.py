"""``recmoe doctor``."""

from pathlib import Path
from typing import Annotated

import typer

from recmoe.cli.output import print_json

MARKS = {"ok": ("✓", "green"), "note": ("·", "cyan"), "warning": ("!", "yellow"), "broken": ("✗", "red")}


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """Look at packages, machine and tracking server, and say what to do about each problem.

    The exit code is 1 when something is broken; warnings leave it at 0.
    """
    from rich.console import Console
    from rich.text import Text

    from recmoe.doctor import diagnose

    diagnosis = diagnose(Path.cwd())
    if as_json:
        print_json(diagnosis.to_json())
    else:
        console = Console(soft_wrap=True, highlight=False)
        for finding in diagnosis.findings:
            mark, colour = MARKS[finding.level]
            console.print(Text.assemble((f"{mark} {finding.topic:<13}", colour), finding.message))
            if finding.remedy:
                console.print(Text(f"{'':15}→ {finding.remedy}"))
    if not diagnosis.is_healthy:
        raise typer.Exit(1)

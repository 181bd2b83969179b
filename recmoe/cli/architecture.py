"""``recmoe check-architecture``: anybody's own gate, expert, architecture or trunk against what each must hold to."""

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recmoe.cli.options import Json, Overrides
from recmoe.cli.output import print_columns, print_json

if TYPE_CHECKING:
    from recmoe.conformance import Outcome
    from recmoe.conformance.outcome import Verdict

MARKS: dict["Verdict", str] = {"passed": "✓ passed", "failed": "✗ failed", "not applicable": "· not applicable"}


def check_architecture(
    place: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:CLASS", help="Config class of a gate, expert, architecture or trunk; found from here."
        ),
    ],
    overrides: Overrides = None,
    loop: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="A naive loop, one row at a time, that it must equal."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a gate, expert, architecture or trunk of your own: shares, gradients, order of tasks, served = trained.

    The exit code is 1 when a property does not hold.
    """
    from recmoe.conformance import check, find, subject_of

    # The console script, unlike python -m, does not look for modules where it is run.
    sys.path.insert(0, str(Path.cwd()))
    subject = subject_of(find(place), overrides=overrides or [], loop=None if loop is None else find(loop))
    outcomes = check(subject)
    if as_json:
        print_json({"checked": place, "role": subject.role, "outcomes": [outcome.to_json() for outcome in outcomes]})
    else:
        _print(outcomes)
    if any(outcome.verdict == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _print(outcomes: "list[Outcome]") -> None:
    rows = [(outcome.property, MARKS[outcome.verdict], outcome.sentence) for outcome in outcomes]
    print_columns(["property", "verdict", "what was seen"], rows)
    counts = Counter(outcome.verdict for outcome in outcomes)
    print(", ".join(f"{counts[verdict]} {verdict}" for verdict in MARKS if counts[verdict]))

"""``recmoe bench serve``: a load on a ranking server, and its latencies."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recmoe.cli.options import Seed
from recmoe.cli.output import print_json

if TYPE_CHECKING:
    from serving.bench.bench import BenchResult

bench_app = typer.Typer(name="bench", help="Loads that measure.", no_args_is_help=True)


@bench_app.callback()
def _bench() -> None:
    """Loads that measure."""


@bench_app.command(
    epilog="Example: recmoe bench serve http://localhost:8000 --data 'log/*.parquet' --json bench.json, or "
    "recmoe bench serve http://localhost:8000 --rate 50,100 --duration 60 --deadline 100"
)
def serve(
    url: Annotated[str, typer.Argument(metavar="URL", help="Of the server, such as http://localhost:8000.")],
    candidates: Annotated[int, typer.Option(min=1, help="Candidates per request.")] = 200,
    rate: Annotated[
        str, typer.Option(help="Requests per second, such as 50 or 50,100; by default shares of what saturates it.")
    ] = "",
    connections: Annotated[
        str, typer.Option(help="Numbers of connections with which saturation is looked for.")
    ] = "1,8,64",
    duration: Annotated[float, typer.Option(min=0.5, help="Seconds of each load.")] = 10.0,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Log that requests are made of: Parquet, CSV or JSON lines; made up by default."),
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Items to ask for; all by default.")] = None,
    deadline: Annotated[float | None, typer.Option(min=1, help="Milliseconds sent as X-Deadline-Ms.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds after which a request is given up.")] = 10.0,
    payloads: Annotated[int, typer.Option(min=1, help="Different requests, which are sent in turn.")] = 64,
    processes: Annotated[int, typer.Option(min=1, help="Processes that send.")] = 1,
    seed: Seed = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures as JSON; - prints them.")
    ] = None,
) -> None:
    """Find the rate that saturates a server, then measure latencies at 25 to 150 % of it.

    Requests leave by a schedule, whatever becomes of those before them, and latency counts from when they were due. A
    token, if the server wants one, is read from RECMOE_TOKEN.
    """
    from recmoe.errors import ServingError
    from serving.bench.bench import SHARES, BenchSettings, run_bench
    from serving.bench.progress import BenchProgress

    settings = BenchSettings(
        url=url,
        candidates=candidates,
        connections=tuple(int(count) for count in _numbers(connections, "--connections", is_whole=True)),
        rates=_numbers(rate, "--rate") if rate else (),
        duration_s=duration,
        timeout_s=timeout,
        deadline_ms=deadline,
        top_k=top_k,
        payloads=payloads,
        processes=processes,
        data=tuple(data or ()),
        seed=seed,
    )
    num_loads = len(settings.rates) or len(settings.connections) + len(SHARES)
    with BenchProgress(num_loads, duration) as progress:
        result = run_bench(settings, token=os.environ.get("RECMOE_TOKEN"), begin=progress.begin)
    _show(result, json_file)
    if result.checked.num_wrong:
        raise ServingError(f"{result.checked.num_wrong} rankings under load differ from those at rest")


def _show(result: "BenchResult", json_file: Path | None) -> None:
    """A table and notes, and a file for programs; or JSON alone."""
    from rich.console import Console

    from serving.bench.table import bench_notes, bench_table

    if json_file is not None and str(json_file) == "-":
        print_json(result.document())
        return
    console = Console()
    # Away from a terminal rich would wrap at 80 columns.
    Console(width=console.width if console.is_terminal else 160).print(bench_table(result))
    print()
    for note in bench_notes(result):
        print(note)
    if json_file is not None:
        json_file.write_text(json.dumps(result.document(), indent=2), encoding="utf-8")


def _numbers(text: str, option: str, *, is_whole: bool = False) -> tuple[float, ...]:
    """Numbers above 0 between commas; wrong usage where they are none."""
    try:
        numbers = tuple(int(part) if is_whole else float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 < number < float("inf") for number in numbers):
        kind = "whole numbers" if is_whole else "numbers"
        raise typer.BadParameter(f"expected {kind} above 0, such as 1,8,64, found {text!r}", param_hint=option)
    return numbers

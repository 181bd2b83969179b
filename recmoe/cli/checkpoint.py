"""``recmoe checkpoint ls | inspect | diff | unshard | reshard``: what checkpoints hold, and copies in other forms."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recmoe.cli.options import Json
from recmoe.cli.output import print_columns, print_json

if TYPE_CHECKING:
    from recmoe.training.checkpoint_contents import Contents, TensorSummary

checkpoint_app = typer.Typer(
    name="checkpoint", help="What is in checkpoints; whole tables of them; other layouts.", no_args_is_help=True
)

Checkpoint = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="Folder step-…, or a run: its newest good checkpoint.")
]


@checkpoint_app.command(epilog="Example: recmoe checkpoint ls runs/ple --verify")
def ls(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_DIR", help="Folder of a run, or of its checkpoints.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Read all files and compare their hashes, not their sizes alone.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the checkpoints of a run: step, time, size, workers, which is best, which are damaged."""
    from recmoe.training.checkpoint_contents import list_checkpoints

    rows = list_checkpoints(source, is_thorough=verify)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    best = next((row for row in rows if row.is_best), None)
    print_columns(
        ["step", "saved at (UTC)", "MB", "saved by", "best", "state"],
        [
            (
                row.step,
                row.saved_at.removesuffix("+00:00").replace("T", " "),
                row.num_bytes / 1e6,
                "" if row.world_size is None else str(row.world_size),
                "best" if row is best else "",
                row.status,
            )
            for row in rows
        ],
    )


@checkpoint_app.command(epilog="Example: recmoe checkpoint inspect runs/ple/checkpoints/step-00001000")
def inspect(checkpoint: Checkpoint, as_json: Json = False) -> None:
    """Show tables, optimizer and dense weights in a few numbers each, and how far the run was."""
    from recmoe.training.checkpoint_contents import find_checkpoint, read_contents

    contents = read_contents(find_checkpoint(checkpoint))
    if as_json:
        print_json(asdict(contents))
        return
    about, state = contents.about, contents.state
    print(f"{contents.path}: saved {about['saved_at']}, processes: {about['world_size']}")
    cursor = state.get("cursor") or {}
    num_rows = sum(stop - start for start, stop in cursor.get("remaining", ()))
    print(f"step {state.get('step')}, epoch {cursor.get('epoch', 0) + 1} with {num_rows:,} of its rows to go")
    print()
    _print_tables(contents)
    for prefix, what in (("dense/", "dense weights"), ("dense_optimizer/", "state of their optimizer")):
        print(f"{what}: {_told(_of(contents, prefix))}")


@checkpoint_app.command(epilog="Example: recmoe checkpoint diff runs/a/checkpoints/step-00001000 runs/b")
def diff(
    first: Checkpoint,
    second: Annotated[Path, typer.Argument(metavar="OTHER", help="The same.")],
    as_json: Json = False,
) -> None:
    """Compare two checkpoints tensor by tensor, whatever workers and shardings they were saved by."""
    from recmoe.training.checkpoint_contents import compare, find_checkpoint

    one, other = find_checkpoint(first), find_checkpoint(second)
    num_equal, differences = compare(one, other)
    if as_json:
        print_json({"first": one, "second": other, "num_equal": num_equal,
                    "differences": [asdict(found) for found in differences]})  # fmt: skip
        return
    if differences:
        headers = ["tensor", "differs in", "rows changed", "largest difference"]
        rows = [
            (
                found.name,
                found.kind,
                *("" if math.isnan(x) else f"{x:.3g}" for x in (found.changed_rows, found.max_abs)),
            )
            for found in differences
        ]
        print_columns(headers, rows)
        print()
    print(f"{num_equal} tensors are equal, {len(differences)} differ: {one} and {other}")


@checkpoint_app.command(epilog="Example: recmoe checkpoint unshard runs/ple --to tables --max-file-mb 2000")
def unshard(
    checkpoint: Checkpoint,
    target: Annotated[Path, typer.Option("--to", help="Folder to make.")],
    max_file_mb: Annotated[int, typer.Option(min=1, help="A larger table becomes files of consecutive rows.")] = 1000,
    as_json: Json = False,
) -> None:
    """Write the weights as safetensors: a file per table, and one for the rest; never a whole table in memory."""
    from recmoe.training.checkpoint_contents import find_checkpoint
    from recmoe.training.checkpoint_copies import unshard as write

    index = write(find_checkpoint(checkpoint), target, max_file_bytes=max_file_mb * 1_000_000)
    if as_json:
        print_json({"path": target, **index})
    else:
        num_files = sum(len(table["files"]) for table in index["tables"].values())
        print(f"wrote {target}: {len(index['tables'])} tables in {num_files} files, and {index['dense']}")


@checkpoint_app.command(epilog="Example: recmoe checkpoint reshard runs/ple --to runs/ple-on-8/checkpoints --workers 8")
def reshard(
    checkpoint: Checkpoint,
    target: Annotated[Path, typer.Option("--to", help="Folder of checkpoints to write it into.")],
    workers: Annotated[int, typer.Option(min=1, help="Workers among whose files the rows are spread evenly.")],
    as_json: Json = False,
) -> None:
    """Rewrite a checkpoint for another number of workers; training resumes from it, as it does without."""
    from recmoe.training.checkpoint_contents import find_checkpoint
    from recmoe.training.checkpoint_copies import reshard as write

    folder = write(find_checkpoint(checkpoint), target, num_workers=workers)
    if as_json:
        print_json({"path": folder, "workers": workers})
    else:
        print(f"wrote {folder}: the same tensors, their rows spread over the files of {workers} workers")


def _print_tables(contents: "Contents") -> None:
    headers = ["table", "rows", "width", "MB", "parts", "norm", "mean", "largest"]
    tables = [(tensor.name.removeprefix("tables/"), tensor) for tensor in _of(contents, "tables/")]
    slots = [(tensor.name.removeprefix("table_optimizer/"), tensor) for tensor in _of(contents, "table_optimizer/")]
    for first, group in (("table", tables), ("state of the tables' optimizer", slots)):
        if group:
            rows = [
                (
                    name,
                    tensor.shape[0],
                    math.prod(tensor.shape[1:]),
                    tensor.num_bytes / 1e6,
                    tensor.num_parts,
                    tensor.norm,
                    f"{tensor.mean:.3g}",
                    f"{tensor.abs_max:.3g}" + (f", {tensor.num_not_finite:,} not finite" * bool(tensor.num_not_finite)),
                )
                for name, tensor in group
            ]
            print_columns([first, *headers[1:]], rows)
            print()


def _of(contents: "Contents", prefix: str) -> list["TensorSummary"]:
    return [tensor for tensor in contents.tensors if tensor.name.startswith(prefix)]


def _told(tensors: list["TensorSummary"]) -> str:
    num_values = sum(math.prod(tensor.shape) for tensor in tensors)
    norm = math.hypot(*(tensor.norm for tensor in tensors))
    num_not_finite = sum(tensor.num_not_finite for tensor in tensors)
    broken = f", {num_not_finite:,} of them not finite" if num_not_finite else ""
    return f"{num_values:,} values in {len(tensors)} tensors, norm {norm:.4g}{broken}"

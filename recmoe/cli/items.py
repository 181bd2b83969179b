"""``recmoe items build``: a table of items as a store that a server looks them up in."""

from pathlib import Path
from typing import Annotated

import typer

from recmoe.cli.options import ModelOption, RegistryUri

items_app = typer.Typer(
    name="items", help="Columns of items that the server keeps, so that requests hold ids.", no_args_is_help=True
)


@items_app.command(epilog="Example: recmoe items build 'items/*.parquet' --model models:/shop@champion --to items")
def build(
    table: Annotated[
        list[str], typer.Argument(metavar="TABLE", help="Files, folders or globs of Parquet, CSV or JSON lines.")
    ],
    model: ModelOption,
    to: Annotated[Path, typer.Option(help="Folder to write, or to replace.", file_okay=False)],
    registry: RegistryUri = None,
) -> None:
    """Write a store of items, one row per id; the rows that are asked for most should come first."""
    from recmoe.runs.items import build_items

    store, lacking = build_items(table, model, to, registry_uri=registry)
    print(f"{store.num_rows:,} items by {store.item} in {to}")
    if lacking:
        print(f"not in the table, so requests have to give them: {', '.join(lacking)}")


@items_app.callback()
def _group() -> None:
    """Columns of items that the server keeps, so that requests hold ids."""

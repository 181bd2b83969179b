"""``recmoe items build`` and ``recmoe users build``: a table as a store that a server looks rows up in."""

from typing import Annotated

import typer

from recmoe.cli.options import ModelOption, RegistryUri

items_app = typer.Typer(
    name="items", help="Columns of items that the server keeps, so that requests hold ids.", no_args_is_help=True
)
users_app = typer.Typer(
    name="users",
    help="Columns of users and their histories that the server keeps, so that requests hold an id.",
    no_args_is_help=True,
)

Table = Annotated[
    list[str], typer.Argument(metavar="TABLE", help="Files, folders or globs of Parquet, CSV or JSON lines.")
]
To = Annotated[
    str, typer.Option(help="Folder to write, or to replace; or redis://HOST:PORT/DB?prefix=NAME (rediss:// for TLS).")
]
KeepOld = Annotated[
    int, typer.Option("--keep-old-s", min=0, help="Seconds that the rows before stay in Redis beside the new ones.")
]


@items_app.command(
    "build",
    epilog="Example: recmoe items build 'items/*.parquet' --model models:/shop@champion --to items, or --to "
    "redis://cache:6379/0 (password: RECMOE_REDIS_PASSWORD)",
)
def build_items(
    table: Table, model: ModelOption, to: To, registry: RegistryUri = None, keep_old: KeepOld = 600
) -> None:
    """Write a store of items, one row per id; the rows that are asked for most should come first."""
    from recmoe.runs.stores import build_store

    store, lacking = build_store(table, model, to, "item", keep_old_s=keep_old, registry_uri=registry)
    _tell(f"{store.num_rows:,} items by {store.column} in {to}", lacking)


@users_app.command(
    "build",
    epilog="Example: recmoe users build 'users/*.parquet' --model models:/shop@champion --to users, or --to "
    "redis://cache:6379/0 (password: RECMOE_REDIS_PASSWORD)",
)
def build_users(
    table: Table,
    model: ModelOption,
    to: To,
    by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of ids; the model's only id of a user by default.")
    ] = None,
    registry: RegistryUri = None,
    keep_old: KeepOld = 600,
) -> None:
    """Write a store of users, one row per id: their columns, and their histories as lists."""
    from recmoe.runs.stores import build_store

    store, lacking = build_store(table, model, to, "user", column=by, keep_old_s=keep_old, registry_uri=registry)
    _tell(f"{store.num_rows:,} users by {store.column} in {to}", lacking)


def _tell(what: str, lacking: list[str]) -> None:
    print(what)
    if lacking:
        print(f"not in the table, so requests have to give them: {', '.join(lacking)}")


@items_app.callback()
def _items() -> None:
    """Columns of items that the server keeps, so that requests hold ids."""


@users_app.callback()
def _users() -> None:
    """Columns of users and their histories that the server keeps, so that requests hold an id."""

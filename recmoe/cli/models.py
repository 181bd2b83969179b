"""``recmoe register | promote | rollback``: versions of models and the alias that names the one in use."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recmoe.cli.options import DeltaOf, Json, RegistryUri
from recmoe.cli.output import print_json
from recmoe.runs.source import RUNS, bundle_of

if TYPE_CHECKING:
    from recmoe.registry.promotions import Promotion

Name = Annotated[str, typer.Argument(metavar="NAME", help="Registered model.")]
Alias = Annotated[str, typer.Option(help="Alias to move.")]
Note = Annotated[str, typer.Option(help="Why; kept in the promotion log.")]


def register(
    source: Annotated[str, typer.Argument(metavar="RUN_OR_BUNDLE", help="Folder of a finished run, or of a bundle.")],
    name: Annotated[str | None, typer.Option(help="Of the model; the bundle's name by default.")] = None,
    delta_of: DeltaOf = None,
    registry: RegistryUri = None,
    as_json: Json = False,
) -> None:
    """Make a new version of a model in the registry, once its replay has passed."""
    from recmoe.registry.registry import Registry
    from recmoe.runs.folder import RunFolder

    bundle = bundle_of(source)
    run_id = RunFolder(Path(source)).state.get("tracking_run_id")
    registered = Registry.connect(registry, folder=RUNS).register(
        Path(bundle), name=name, run_id=run_id, base=delta_of, cache=RUNS / "cache"
    )
    assert registered.transfer is not None
    if as_json:
        print_json({"name": registered.name, "version": registered.version, "sent": asdict(registered.transfer)})
        return
    print(f"registered {registered.name} version {registered.version}")
    if delta_of is not None:
        print(f"sent {registered.transfer}")
    print(f"next: recmoe promote {registered.name} {registered.version}")


def promote(
    name: Name,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Number of the version.")],
    alias: Alias = "champion",
    note: Note = "",
    registry: RegistryUri = None,
    as_json: Json = False,
) -> None:
    """Let an alias name a version, and write down who moved it, when and from where."""
    from recmoe.registry.registry import Registry

    moved = Registry.connect(registry, folder=RUNS).promote(name, version, alias=alias, note=note)
    _print_move(name, alias, moved, as_json=as_json)


def rollback(
    name: Name,
    to: Annotated[str | None, typer.Option("--to", metavar="VERSION", help="An earlier version to go back to.")] = None,
    alias: Alias = "champion",
    note: Note = "",
    registry: RegistryUri = None,
    as_json: Json = False,
) -> None:
    """Let an alias name the version that it named before, or an earlier one."""
    from recmoe.registry.registry import Registry

    moved = Registry.connect(registry, folder=RUNS).rollback(name, to=to, alias=alias, note=note)
    _print_move(name, alias, moved, as_json=as_json)


def _print_move(name: str, alias: str, moved: "Promotion", *, as_json: bool) -> None:
    if as_json:
        print_json({"name": name, "alias": alias, "version": moved.version, "previous": moved.previous, "at": moved.at})
        return
    print(f"models:/{name}@{alias} is version {moved.version}" + (f", was {moved.previous}" if moved.previous else ""))

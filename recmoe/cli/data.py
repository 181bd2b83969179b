"""``recmoe data import | synthetic | check``: from public or made data to a config that is ready to train."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from recmoe.cli.check import check
from recmoe.cli.options import Json, Seed
from recmoe.cli.output import print_columns, print_json

data_app = typer.Typer(name="data", help="Public data sets, a synthetic log, checks.", no_args_is_help=True)
data_app.command(epilog="Example: recmoe data check data/shop/config.yaml --strict data.on_error=skip")(check)

Target = Annotated[Path, typer.Option("--to", help="Folder for the Parquet splits and config.yaml.", file_okay=False)]


class DatasetName(StrEnum):
    """The public data sets that recmoe reads."""

    census = "census"
    hillstrom = "hillstrom"
    trivago = "trivago"


@data_app.command("import", epilog="Example: recmoe data import census --from downloads/census --to data/census")
def import_(
    name: Annotated[DatasetName, typer.Argument(help="Which data set.")],
    source: Annotated[Path, typer.Option("--from", help="The published file, or the folder that holds it.")],
    target: Target,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Turn a public data set into Parquet splits and a config that is ready to train."""
    from recmoe.data.datasets import import_dataset

    config = import_dataset(name.value, source, target, seed=seed)
    if as_json:
        print_json({"config": config})
    else:
        print(f"wrote {config}\nnext: recmoe train {config} --run-dir runs/{name.value}")


@data_app.command(epilog="Example: recmoe data synthetic --to data/synthetic --rows 300000")
def synthetic(
    target: Target,
    rows: Annotated[int, typer.Option(min=1, help="Rows of all splits together.")] = 300_000,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Make a click and purchase log whose best reachable metrics are known."""
    from recmoe.data.synthetic import write_synthetic

    result = write_synthetic(target, num_rows=rows, seed=seed)
    if as_json:
        print_json({"config": result.config, "num_rows": result.num_rows, "truth": result.truth})
        return
    print_columns(["split", "rows"], list(result.num_rows.items()))
    print()
    print_columns(["metric", "best reachable"], list(result.truth.items()))
    print(f"\nwrote {result.config}\nnext: recmoe train {result.config} --run-dir runs/synthetic")

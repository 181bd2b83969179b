"""``recmoe prepare``: what training does before its first step, by itself."""

import re
from typing import Annotated

import typer

from recmoe.cli.options import Config, Json, Overrides, RegistryUri, Resume, RunDir, WarmStartFrom
from recmoe.cli.output import print_columns, print_json
from recmoe.runs.source import RUNS


def prepare(
    config: Config,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    resume: Resume = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Read with that many Ray workers; in this process by default.")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="What vocabularies may take while they are learnt, over all workers, such as 500MB or 8GB."),
    ] = None,
    warm_start: WarmStartFrom = None,
    registry: RegistryUri = None,
    as_json: Json = False,
) -> None:
    """Learn vocabularies and statistics and check all rows, as training would before its first step.

    Data may be larger than memory. `recmoe train` with the same --run-dir goes on from there.
    """
    from recmoe.experiment import load_experiment
    from recmoe.runs.prepare import prepare_run
    from recmoe.runs.warm_start import find_warm_start

    allowed = [] if memory is None else [f"data.memory_gb={_gigabytes(memory)}"]
    experiment = load_experiment(config, [*(overrides or []), *allowed])
    root = run_dir or RUNS / experiment.name
    earlier = None if warm_start is None else find_warm_start(warm_start, registry_uri=registry)
    if workers is None:
        encoder = prepare_run(experiment, root, resume=resume, reading=None, warm_start=earlier)
    else:
        from pipelines.prepare import reading_on_ray

        with reading_on_ray(num_workers=workers) as reading:
            encoder = prepare_run(experiment, root, resume=resume, reading=reading, warm_start=earlier)
    tables = {table.name: table.num_rows for table in encoder.layout.tables}
    if as_json:
        print_json({"run_dir": root, "fingerprint": encoder.fingerprint, "table_rows": tables})
        return
    print_columns(["table", "rows"], list(tables.items()))
    print(f"\nencoder  {root}/encoder, fingerprint {encoder.fingerprint[:12]}")
    print(f"next     recmoe train {config} --run-dir {root}")


def _gigabytes(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(MB|GB)", text.strip(), flags=re.IGNORECASE)
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a size; write it like 500MB or 8GB", param_hint="--memory")
    return float(found[1]) / (1 if found[2].upper() == "GB" else 1000)

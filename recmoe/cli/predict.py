"""``recmoe predict``: a log through a model."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from recmoe.cli.options import Json, Model, RegistryUri, Score
from recmoe.cli.output import print_json
from recmoe.runs.source import bundle_path, load_ranker


def predict(
    model: Model,
    data: Annotated[list[str], typer.Option(help="File, folder or glob of Parquet or CSV; repeatable.")],
    target: Annotated[
        Path, typer.Option("--to", help="Parquet file to write, or a folder of parts that a second start completes.")
    ],
    keep: Annotated[
        list[str] | None,
        typer.Option(
            help="Column to copy; repeatable. The group and item columns by default. One that is named like a task, as "
            "a label may be, is written as log_NAME."
        ),
    ] = None,
    score: Score = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Predict in that many Ray workers, into a folder. RAY_ADDRESS names a cluster."),
    ] = None,
    registry: RegistryUri = None,
    as_json: Json = False,
) -> None:
    """Write a model's predictions for every row of a log.

    A folder is completed by the same command: parts that are there are not made again.
    """
    from recmoe.ranking.prediction_columns import score_column
    from recmoe.runs.prediction_parts import write_prediction_parts
    from recmoe.runs.predictions import write_predictions

    if target.suffix == ".parquet":
        if workers is not None:
            raise typer.BadParameter("workers write a folder of parts; name one without .parquet", param_hint="--to")
        ranker = load_ranker(model, registry_uri=registry)
        num_rows = write_predictions(ranker, data, target, keep=keep or [], score=score)
        task_names, parts = ranker.task_names, {}
    else:
        map_parts: Any = map
        if workers is not None:
            from pipelines.predict import parts_on_ray

            map_parts = partial(parts_on_ray, workers, target)
        written = write_prediction_parts(
            bundle_path(model, registry_uri=registry), data, target, keep=keep or [], score=score, map_parts=map_parts
        )
        num_rows, task_names = written.num_rows, written.task_names
        parts = {"num_parts": written.num_parts, "num_found": written.num_found}
    if as_json:
        print_json({"path": target, "num_rows": num_rows, "tasks": task_names, **parts})
        return
    names = f"{', '.join(task_names)} and {score_column(task_names)}"
    found = f", {parts['num_found']} of them there already" if parts.get("num_found") else ""
    in_parts = f", {parts['num_parts']} part{'s' if parts['num_parts'] > 1 else ''}{found}" if parts else ""
    print(f"wrote {num_rows:,} rows of {names} to {target}{in_parts}")

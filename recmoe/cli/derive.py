"""``recmoe distil``: one model from another."""

from typing import Annotated

import typer

from recmoe.cli.options import Config, Json, Overrides, RegistryUri, Resume, RunDir, ShowAll, Strict, Workers
from recmoe.cli.runs import launch_of, show_run
from recmoe.runs.source import RUNS

Source = Annotated[
    str,
    typer.Argument(metavar="SOURCE", help="models:/NAME@ALIAS, models:/NAME/VERSION, a run folder or a bundle."),
]


def distil(
    source: Source,
    config: Config,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    resume: Resume = False,
    workers: Workers = None,
    registry: RegistryUri = None,
    strict: Strict = False,
    show_all: ShowAll = False,
    as_json: Json = False,
) -> None:
    """Train a student on its labels and on what another model, its teacher, predicts.

    CONFIG is the student's experiment, with any architecture and any features. Tasks that the teacher has under the
    same name learn from it; model.distillation.weight and .temperature say how much. The teacher scores the training
    rows once, through its own encoder; an epoch costs what any other does. The run is one as any other, and ends with
    what the student costs and predicts next to its teacher.
    """
    from recmoe.experiment import load_experiment
    from recmoe.runs.origin import find_origin
    from recmoe.runs.train import train_run

    experiment = load_experiment(config, overrides or [])
    launch, _ = launch_of(workers)
    teacher = find_origin(source, made_by="distil", registry_uri=registry)
    root = run_dir or RUNS / experiment.name
    result = train_run(experiment, root, resume=resume, launch=launch, teacher=teacher, is_strict=strict)
    show_run(result, show_all=show_all, as_json=as_json)

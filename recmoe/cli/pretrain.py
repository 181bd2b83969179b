"""``recmoe pretrain``: tables and experts that have learned without labels, to train from."""

from typing import Any

from recmoe.cli.cost import number
from recmoe.cli.options import Config, Json, Overrides, RegistryUri, Resume, RunDir, WarmStartFrom, Workers
from recmoe.cli.output import print_columns, print_json
from recmoe.cli.runs import launch_of, tell_interrupted
from recmoe.runs.source import RUNS


def pretrain(
    config: Config,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    resume: Resume = False,
    workers: Workers = None,
    warm_start: WarmStartFrom = None,
    registry: RegistryUri = None,
    as_json: Json = False,
) -> None:
    """Train tables, experts and gates without labels, by ids that are hidden from the model.

    CONFIG is an ordinary experiment; of its rows no label is read, and none need be there. A share of the ids of every
    row is hidden, and the model guesses them from what is left of the row (model.pretraining). The run, in
    runs/NAME-pretrained by default, has no bundle: train a model from it with train CONFIG --warm-start RUN_DIR, on the
    rows that have labels. Tables, experts and gates go on from there; towers begin anew.
    """
    from recmoe.experiment import load_experiment
    from recmoe.runs.train import train_run
    from recmoe.runs.warm_start import find_warm_start

    # What the file and the command line say of the section is merged into it.
    experiment = load_experiment(config, ["model.pretraining={}", *(overrides or [])])
    root = run_dir or RUNS / f"{experiment.name}-pretrained"
    launch, _ = launch_of(workers)
    earlier = None if warm_start is None else find_warm_start(warm_start, registry_uri=registry)
    result = train_run(experiment, root, resume=resume, launch=launch, warm_start=earlier)
    report = result.folder.pretraining_report()
    if as_json:
        print_json({"run_dir": root, "is_interrupted": result.is_interrupted, "samples_per_s": result.samples_per_s,
                    **(report or {})})  # fmt: skip
    tell_interrupted(result)
    if report is not None and not as_json:
        print_pretraining(report)
        print(f"\nspeed    {result.samples_per_s:,.0f} samples/s")
        print(f"next     recmoe train {config} --warm-start {root}")


def print_pretraining(report: dict[str, Any]) -> None:
    """How well hidden ids are guessed, feature by feature."""
    print(f"hidden ids of the {report['split']} split\n")
    print_columns(
        ["feature", "classes", "hidden", "loss", "loss of frequencies", "saved", "right"],
        [
            (name, one["classes"], one["hidden"],
             *(number(one[key]) for key in ("loss", "frequency_loss", "saved", "right")))
            for name, one in report["features"].items()
        ],
    )  # fmt: skip

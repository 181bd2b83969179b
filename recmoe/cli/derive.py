"""``recmoe distil | upcycle | prune-experts | moefy | quantize``: one model from another."""

import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer

from recmoe.cli.cost import print_cost
from recmoe.cli.options import Config, Json, Overrides, RegistryUri, Resume, RunDir, ShowAll, Strict, Workers
from recmoe.cli.output import print_columns, print_json
from recmoe.cli.runs import launch_of, show_run
from recmoe.runs.source import RUNS, load_ranker

Source = Annotated[
    str,
    typer.Argument(metavar="SOURCE", help="models:/NAME@ALIAS, models:/NAME/VERSION, a run folder or a bundle."),
]


def distil(
    source: Source,
    config: Config,
    overrides: Overrides = None,
    also: Annotated[
        list[str] | None,
        typer.Option("--also", metavar="SOURCE", help="One more teacher; repeatable. The student follows their mean."),
    ] = None,
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
    rows once, through its own encoder; an epoch costs what any other does. Several teachers, such as one model trained
    from several seeds, teach the mean of their logits: what an ensemble knows, at the price of one model. The run is
    one as any other, and ends with what the student costs and predicts next to its first teacher.
    """
    from recmoe.experiment import load_experiment
    from recmoe.runs.origin import find_origin
    from recmoe.runs.train import train_run

    experiment = load_experiment(config, overrides or [])
    launch, _ = launch_of(workers)
    teacher = find_origin(source, *(also or []), made_by="distil", registry_uri=registry)
    root = run_dir or RUNS / experiment.name
    result = train_run(experiment, root, resume=resume, launch=launch, origin=teacher, is_strict=strict)
    show_run(result, show_all=show_all, as_json=as_json)


def upcycle(
    source: Source,
    config: Config,
    overrides: Overrides = None,
    noise: Annotated[
        float,
        typer.Option(
            min=0.0, help="What tells experts apart before the first step: its spread, as a share of the weights' own."
        ),
    ] = 0.01,
    run_dir: RunDir = None,
    resume: Resume = False,
    workers: Workers = None,
    registry: RegistryUri = None,
    strict: Strict = False,
    show_all: ShowAll = False,
    as_json: Json = False,
) -> None:
    """Train a mixture that begins as a trained dense model.

    SOURCE is a model whose tasks all read one network (shared_bottom). CONFIG asks for a mixture of one layer, whose
    expert_hidden is the network's: every expert begins as a copy of it, gates are drawn. Before a step the mixture
    predicts what the dense model predicts, unless its gates are of a kind whose weights do not sum to one (switch,
    relu, stable). All else goes on as with train --warm-start from a bundle.
    """
    from recmoe.experiment import load_experiment
    from recmoe.growth.earlier import WarmStart
    from recmoe.runs.origin import find_origin
    from recmoe.runs.train import train_run

    experiment = load_experiment(config, overrides or [])
    launch, _ = launch_of(workers)
    origin = find_origin(source, made_by="upcycle", registry_uri=registry)
    # A run's checkpoint lacks what is set at its end, such as the level of amounts: the bundle is what is served.
    start = WarmStart(source, origin.root, None, noise=noise)
    root = run_dir or RUNS / experiment.name
    result = train_run(
        experiment, root, resume=resume, launch=launch, warm_start=start, origin=origin, is_strict=strict
    )
    show_run(result, show_all=show_all, as_json=as_json)


def prune_experts(
    source: Source,
    keep: Annotated[int, typer.Option(min=1, help="Experts of a task, and shared ones, that stay in each layer.")],
    target: Annotated[Path, typer.Option("--to", help="Folder of the new bundle.", file_okay=False)],
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge those that go into the most like of those that stay, by use.")
    ] = False,
    registry: RegistryUri = None,
    as_json: Json = False,
) -> None:
    """Take the experts out of a mixture that its gates use least; nothing is trained.

    Use is counted on the validation split of the model's config. The gates share out among the experts that stay, in
    the proportions of before. With --merge nothing is thrown away: hidden units are put into one order, and each expert
    that stays becomes the mean of itself and of those that are most like it, weighted by use. It ends with what the
    new model costs and predicts next to the old one.
    """
    from recmoe.export.lineage import Lineage
    from recmoe.runs.prune import prune_experts as prune

    bundle = load_ranker(source, registry_uri=registry).bundle
    with tempfile.TemporaryDirectory(prefix="recmoe-") as folder:
        pruned = prune(
            bundle,
            target,
            keep=keep,
            merge=merge,
            lineage=Lineage("prune-experts", source, bundle.digest),
            cache_dir=Path(folder),
        )
    if as_json:
        dropped = {f"level {cut.level}": dict(cut.dropped) for cut in pruned.cuts.values()}
        joined = {f"level {pruned.cuts[path].level}": dict(of_layer) for path, of_layer in pruned.joined.items()}
        print_json({"bundle": target, "dropped": dropped, "merged_into": joined, "cost": pruned.cost.to_json()})
        return
    print(f"least used on the {pruned.split} split, and {'merged' if merge else 'left out'}:\n")
    rows = [
        (cut.level, name, used, *([pruned.joined[path][name]] if merge else []))
        for path, cut in pruned.cuts.items()
        for name, used in cut.dropped.items()
    ]
    print_columns(["level", "expert", "share of the gates' weights", *(["into"] if merge else [])], rows)
    print_cost(pruned.cost.to_json())
    print(f"\nbundle   {target}\nnext     recmoe register {target}")


def moefy(
    source: Source,
    experts: Annotated[int, typer.Option(min=1, help="Parts of one size that the units of the layer are split into.")],
    use: Annotated[int, typer.Option(min=1, help="Parts that a row uses; with all of them nothing changes.")],
    target: Annotated[Path, typer.Option("--to", help="Folder of the new bundle.", file_okay=False)],
    registry: RegistryUri = None,
    as_json: Json = False,
) -> None:
    """Split a layer of a trained dense model into experts, of which every row uses some; nothing is trained.

    SOURCE is a shared_bottom with two layers or more. The units of its last but one layer are grouped by their weights,
    and a linear router is fitted, on the training split of the model's config, to how active each group is. It ends
    with what the new model costs and predicts next to the old one. To train it further, give train --warm-start the
    bundle and its model.architecture.
    """
    from recmoe.export.lineage import Lineage
    from recmoe.runs.moefy import moefy as split

    bundle = load_ranker(source, registry_uri=registry).bundle
    with tempfile.TemporaryDirectory(prefix="recmoe-") as folder:
        made = split(
            bundle,
            target,
            num_experts=experts,
            k=use,
            lineage=Lineage("moefy", source, bundle.digest),
            cache_dir=Path(folder),
        )
    if as_json:
        print_json({"bundle": target, "captured": made.captured, "cost": made.cost.to_json()})
        return
    print(f"{use} of {experts} experts hold {made.captured:.1%} of the activations on the {made.split} split\n")
    print_cost(made.cost.to_json())
    print(f"\nbundle   {target}\nnext     recmoe register {target}")


def quantize(
    source: Source,
    tables: Annotated[Literal["bf16", "int8"], typer.Option(help="bf16: half the bytes; int8: about a quarter.")],
    target: Annotated[Path, typer.Option("--to", help="Folder of the new bundle.", file_okay=False)],
    registry: RegistryUri = None,
    as_json: Json = False,
) -> None:
    """Keep the tables of a model in fewer bytes; nothing is trained.

    int8 keeps a byte a number, and a scale and an offset per row. It ends with what the new model costs and predicts
    next to the old one, on the test split of the model's config.
    """
    from recmoe.export.lineage import Lineage
    from recmoe.runs.quantize import quantize_tables

    bundle = load_ranker(source, registry_uri=registry).bundle
    with tempfile.TemporaryDirectory(prefix="recmoe-") as folder:
        lineage = Lineage("quantize", source, bundle.digest)
        made = quantize_tables(bundle, target, to=tables, lineage=lineage, cache_dir=Path(folder))
    if as_json:
        print_json({"bundle": target, "cost": made.cost.to_json()})
        return
    print_cost(made.cost.to_json())
    print(f"\nbundle   {target}\nnext     recmoe register {target}")

"""``recmoe metalearn | adapt``: a new domain or task from few rows."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from recmoe.cli.cost import number, print_cost, print_tasks
from recmoe.cli.derive import Source
from recmoe.cli.options import Json, Overrides, RegistryUri, ShowAll, with_expanded
from recmoe.cli.output import print_columns, print_json


def metalearn(
    source: Source,
    domain: Annotated[str, typer.Option(help="Feature of kind id, whose ids are the domains to learn from.")],
    target: Annotated[Path, typer.Option("--to", help="Folder of the new bundle.", file_okay=False)],
    overrides: Overrides = None,
    registry: RegistryUri = None,
    as_json: Json = False,
) -> None:
    """Move a trained model to where few steps learn a new domain.

    In every round some domains of the training split are drawn, the model takes adaptation.steps steps on rows of each,
    and its start moves: towards where they led (adaptation.meta.kind=reptile), or by the gradient of other rows of the
    domain there (fomaml). Tables stay as they are. It ends with what the new model predicts and costs next to the old
    one, before any adaptation; adapt is the next step.
    """
    from recmoe.runs.metalearn import metalearn as learn_start
    from recmoe.runs.origin import find_origin

    origin = find_origin(source, made_by="metalearn", registry_uri=registry)
    with tempfile.TemporaryDirectory(prefix="recmoe-") as folder:
        made = learn_start(origin, target, domain=domain, overrides=overrides or [], cache_dir=Path(folder))
    if as_json:
        print_json(
            {"bundle": target, "domains": dict(made.domains), "left_out": dict(made.left_out), "seconds": made.seconds,
             "cost": made.cost.to_json()}
        )  # fmt: skip
        return
    print(f"{len(made.domains)} domains of {domain}, {sum(made.domains.values()):,} rows; {made.seconds:.1f} s")
    if made.left_out:
        print(f"{len(made.left_out)} domains have too few rows and were left out")
    print_cost(made.cost.to_json())
    print(f"\nbundle   {target}\nnext     recmoe adapt {target} --data FEW_ROWS --to FOLDER")


def adapt(
    source: Source,
    data: Annotated[list[str], typer.Option(help="File, folder or glob of labelled rows of the domain; repeatable.")],
    target: Annotated[Path, typer.Option("--to", help="Folder of the new bundle.", file_okay=False)],
    overrides: Overrides = None,
    steps: Annotated[
        int | None, typer.Option(min=0, help="Steps to take; chosen on rows held back by default.")
    ] = None,
    registry: RegistryUri = None,
    show_all: ShowAll = False,
    as_json: Json = False,
) -> None:
    """Let a trained model learn a new domain, or a new task, from few labelled rows.

    The weights beside the tables take a few steps; adaptation.lr, .batch_size and .weights say how. How
    many, adaptation.steps at most, is chosen on folds of the rows that are held back in turn. tasks.NAME='{kind: …}'
    adds a task, which alone is learned then: the others keep their predictions (adaptation.weights=all lets all move).
    It ends with what the new model predicts of the few rows, held back, and of the test split of the model's config.
    """
    from recmoe.runs.adapt import adapt as learn_few
    from recmoe.runs.origin import find_origin

    paths, changes = with_expanded(data, overrides)
    origin = find_origin(source, made_by="adapt", registry_uri=registry)
    with tempfile.TemporaryDirectory(prefix="recmoe-") as folder:
        made = learn_few(origin, target, paths=paths, steps=steps, overrides=changes, cache_dir=Path(folder))
    if as_json:
        print_json(
            {"bundle": target, "rows": made.num_rows, "steps": made.steps, "is_chosen": made.is_chosen,
             "losses": list(made.losses_S), "here": asdict(made.here), "seconds": made.seconds,
             "cost": made.cost.to_json()}
        )  # fmt: skip
        return
    how = "chosen on rows held back" if made.is_chosen else "as asked for"
    print(f"{made.steps} steps on {made.num_rows:,} rows, {how}; {made.seconds:.1f} s")
    print(f"mean loss of rows held back: {made.losses_S[0]:.5f} before, {made.losses_S[made.steps]:.5f} after\n")
    if not made.steps:
        print("no step predicts the rows held back better than none: the model is as it was\n")
    print("on the few rows, each predicted by what learned from others:\n")
    here = asdict(made.here)
    print_tasks(here["tasks"])
    then, now = here["metrics_before"], here["metrics_after"]
    shown = [(name, number(then.get(name)), number(now[name])) for name in now if show_all or name not in then]
    if shown:
        print_columns(["metric", "before", "after"], shown)
    print_cost(made.cost.to_json())
    print(f"\nbundle   {target}\nnext     recmoe register {target}")

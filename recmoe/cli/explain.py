"""``recmoe explain`` and ``recmoe explain-gates``: what moves the predictions and the gates of a model."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from recmoe.cli.options import Json, Model, RegistryUri
from recmoe.cli.output import print_columns, print_json
from recmoe.cli.runs import SplitName
from recmoe.runs.source import load_ranker

Split = Annotated[SplitName, typer.Option(help="Split of the model's config.")]
Data = Annotated[list[str] | None, typer.Option(help="File, folder or glob to use in place of the split; repeatable.")]


def explain(
    model: Model,
    split: Split = SplitName.test,
    data: Data = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows, spread evenly through the split.")] = 256,
    target: Annotated[Path, typer.Option("--to", help="File for a line of JSON per row.")] = Path("explained.jsonl"),
    registry: RegistryUri = None,
    as_json: Json = False,
) -> None:
    """Say what makes a model's predictions: how far each feature moves them, row by row, and the weights of its gates.

    A row is explained as by the ranking API with "explain": true: Shapley values against a row of nothing but missing
    values. What is printed is their mean size, in log-odds where a task predicts a probability.
    """
    from recmoe.runs.explain import explain_rows

    ranker = load_ranker(model, registry_uri=registry)
    with tempfile.TemporaryDirectory(prefix="recmoe-") as folder:
        found = explain_rows(ranker, split=split.value, paths=data or [], num_rows=rows, cache_dir=Path(folder))
    found.write(target)
    sizes = found.mean_sizes()
    if as_json:
        print_json(sizes)
        return
    features = next(iter(sizes.values()))
    print_columns(
        ["feature", *(f"task {task}" for task in sizes)],
        [(feature, *(of_task[feature] for of_task in sizes.values())) for feature in features],
    )
    print(f"\nmean size over {len(found.explanations)} rows; wrote {target}")


def explain_gates(
    model: Model,
    split: Split = SplitName.test,
    data: Data = None,
    rows: Annotated[int, typer.Option(min=2, help="Rows, spread evenly through the split.")] = 256,
    steps: Annotated[int, typer.Option(min=1, help="Of the integral; more make the attributions add up better.")] = 32,
    target: Annotated[Path, typer.Option("--to", help="Folder for gates.json and gates.html.")] = Path("gates"),
    registry: RegistryUri = None,
    as_json: Json = False,
) -> None:
    """Attribute the weights of a model's gates to its features, by integrated gradients.

    A row is explained against the mean of all. Attributions of a row add up to the difference of its weights; where
    they do not, because a sparse gate below chooses otherwise on the way, it is said by how much.
    """
    from recmoe.evaluation.gate_features_page import in_words
    from recmoe.runs.explain import explain_gates as explain_all

    bundle = load_ranker(model, registry_uri=registry).bundle
    with tempfile.TemporaryDirectory(prefix="recmoe-") as folder:
        found = explain_all(
            bundle, split=split.value, paths=data or [], num_rows=rows, num_steps=steps, cache_dir=Path(folder)
        )
    values, page = found.write(target)
    if as_json:
        print_json([one.to_json() for one in found.gates])
        return
    for one in found.gates:
        print(f"level {one.level}, gate {one.gate}: {in_words(one)}")
    print(f"\nwrote {values} and {page}")

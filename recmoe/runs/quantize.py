"""quantize_tables(): a bundle whose tables take a half or a quarter of the bytes, and what that changes."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from recmoe.embeddings.logical import find_tables
from recmoe.embeddings.row_format import QuantizedName, named_format
from recmoe.embeddings.tables import PlainTables
from recmoe.export.bundle import ModelBundle, check_free
from recmoe.export.lineage import Lineage
from recmoe.export.weights import weight_name
from recmoe.model import MultiTaskRanker, build_model
from recmoe.runs.cost import Cost
from recmoe.runs.derived import Derivation


@dataclass(frozen=True)
class Quantized:
    """A model with smaller tables."""

    bundle: ModelBundle
    cost: Cost


def quantize_tables(
    bundle: ModelBundle, target: Path, *, to: QuantizedName, lineage: Lineage, cache_dir: Path
) -> Quantized:
    """Write a bundle with the rows of all tables in another format, and measure it next to the old one.

    What it predicts of the replay's rows is its own, so that serving it is proven as for any other bundle.

    Args:
        bundle: has passed its replay.
        target: folder to make.
        to: the format; see ``row_format``.
        cache_dir: where CSV files are converted.

    Raises:
        TrainingError: the tables have been quantized already.
        DataError, SchemaError: the test split of its config cannot be read.
        BundleError: the folder is there, or cannot be written.
    """
    check_free(target)
    derivation = Derivation.of(bundle, cache_dir=cache_dir)
    model = _quantized(derivation, to)
    made, cost = derivation.write(target, config=derivation.config, model=model, lineage=lineage)
    return Quantized(made, cost)


@torch.no_grad()
def _quantized(derivation: Derivation, to: QuantizedName) -> MultiTaskRanker:
    """The model with its tables in another format."""
    bundle, row_format = derivation.bundle, named_format(to)
    _, tables = find_tables(bundle.model)
    names = [spec.name for spec in tables.layout.tables]
    made = build_model(
        layout=bundle.encoder.layout,
        tasks=bundle.tasks,
        config=derivation.config.model,
        tables=partial(PlainTables, formats=dict.fromkeys(names, row_format)),
    )
    state = bundle.model.state_dict()
    for name, weight_VD in tables.table_weights().items():
        state[weight_name(name)] = row_format.pack(weight_VD)
    made.load_state_dict(state, assign=True)
    return made.eval().requires_grad_(False)

"""moefy(): a bundle whose dense network is split into experts, and what that costs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch import Tensor

from recmoe.architectures import ArchitectureConfig
from recmoe.data.loader import Split as DataSplit
from recmoe.errors import TrainingError
from recmoe.export.bundle import ModelBundle, check_free
from recmoe.export.lineage import Lineage
from recmoe.growth.moefy import balanced_clusters, captured, fit_router, moefied_into, split_of
from recmoe.runs.cost import Cost
from recmoe.runs.derived import Derivation


@dataclass(frozen=True)
class Moefied:
    """A dense model as a mixture of its own units."""

    bundle: ModelBundle
    captured: float
    """Share of the activations of all units that the chosen experts have."""
    split: DataSplit
    """The rows that this was measured on."""
    cost: Cost


@torch.no_grad()
def moefy(bundle: ModelBundle, target: Path, *, num_experts: int, k: int, lineage: Lineage, cache_dir: Path) -> Moefied:
    """Write a bundle in which a row uses ``k`` of ``num_experts`` parts of a layer, and measure it next to the old one.

    Units are grouped by their weights; the router is fitted to the training split.

    Args:
        bundle: has passed its replay.
        target: folder to make.
        cache_dir: where CSV files are converted.

    Raises:
        TrainingError: the model has no layer to split, or it cannot be split into so many parts of one size.
        DataError, SchemaError: the splits of its config cannot be read.
        BundleError: the folder is there, or cannot be written.
    """
    check_free(target)
    derivation = Derivation.of(bundle, cache_dir=cache_dir)
    split = split_of(bundle.model)
    if split.num_units % num_experts or k > num_experts:
        raise TrainingError(
            f"{split.num_units} units cannot be split into {num_experts} experts of one size, of which a row uses {k}; "
            "choose a number of experts that divides them, and no more to use"
        )

    def rows(name: DataSplit) -> Iterator[tuple[Tensor, Tensor]]:
        for batch, num_real, _ in derivation.loader(name).all_rows():
            z_NZ, a_NU = split.read(bundle.model, batch)
            yield z_NZ[:num_real], a_NU[:num_real]

    cluster_U = balanced_clusters(split.units(), num_experts, seed=derivation.config.seed)
    router = fit_router(rows("train"), cluster_U)
    # What kept the network from learning rows by heart does so where it is trained further.
    dropout = split.network.experts.dropout
    section = {"kind": "moefied", "hidden": split.hidden, "num_experts": num_experts, "k": k, "dropout": dropout}
    config, model = derivation.with_architecture(TypeAdapter(ArchitectureConfig).validate_python(section))
    moefied_into(model, bundle.model, cluster_U, router)
    share = captured(rows(derivation.judging_split), cluster_U, router, k)
    made, cost = derivation.write(target, config=config, model=model, lineage=lineage)
    return Moefied(made, share, derivation.judging_split, cost)

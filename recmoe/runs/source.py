"""Where a model comes from: a registry, a run folder or a bundle."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from recmoe.ranking.ranker import Ranker

RUNS = Path("runs")
"""Runs, and MLflow's SQLite file and artifacts beside them, unless something else is asked for."""


def bundle_of(source: str) -> str:
    """The bundle of a run folder; any other source as it is.

    Raises:
        TrainingError: the run has not come to its end.
    """
    from recmoe.runs.export import run_bundle
    from recmoe.runs.folder import RunFolder

    if source.startswith("models:"):
        return source
    folder = RunFolder(Path(source))
    # A bundle has a config too; only a run has a state.
    return str(run_bundle(folder)) if folder.state else source


def bundle_path(source: str, *, runs: Path = RUNS, registry_uri: str | None = None) -> Path:
    """The folder of the bundle of ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, a run or a bundle.

    Raises:
        RegistryError, TrainingError: there is no such model.
    """
    bundle = bundle_of(source)
    if not bundle.startswith("models:"):
        return Path(bundle).resolve()
    from recmoe.registry.registry import Registry

    return Registry.connect(registry_uri, folder=runs).resolve(bundle, cache=runs / "cache").path.resolve()


def load_ranker(
    source: str,
    *,
    runs: Path = RUNS,
    registry_uri: str | None = None,
    strict_fields: bool = False,
    precision: Literal["fp32", "bf16"] = "fp32",
    items: Path | None = None,
    items_known_bytes: int = 0,
) -> "Ranker":
    """The ranker of ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, a run or a bundle, after its replay.

    Args:
        runs: where the local registry is, and where versions of a remote one are kept.
        registry_uri: registry to ask; by default MLFLOW_TRACKING_URI, else the one in ``runs``.
        strict_fields: whether a request may not hold fields that the model does not know.
        precision: of matrix products.
        items, items_known_bytes: see ``Ranker.load``.

    Raises:
        BundleError, RegistryError, TrainingError: there is no such model, or it does not pass.
        SchemaError, DataError: the items are not a store, or not one for this model.
    """
    from recmoe.ranking.ranker import Ranker

    bundle = bundle_of(source)
    load = partial(
        Ranker.load,
        strict_fields=strict_fields,
        precision=precision,
        items=items,
        items_known_bytes=items_known_bytes,
    )
    if not bundle.startswith("models:"):
        return load(Path(bundle))
    # MLflow takes seconds to import, and a bundle in a folder does not need it.
    from recmoe.registry.registry import Registry

    found = Registry.connect(registry_uri, folder=runs).resolve(bundle, cache=runs / "cache")
    return load(found.path, name=found.name, version=found.version)

"""Where a model comes from: a registry, a run folder or a bundle."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recmoe.ranking.ranker import Ranker

RUNS = Path("runs")
"""Runs, and MLflow's SQLite file and artifacts beside them, unless something else is asked for."""


def bundle_of(source: str) -> str:
    """The bundle of a run folder; any other source as it is.

    Raises:
        TrainingError: the run has not come to its end.
    """
    from recmoe.run_export import run_bundle
    from recmoe.run_folder import RunFolder

    if source.startswith("models:"):
        return source
    folder = RunFolder(Path(source))
    # A bundle has a config too; only a run has a state.
    return str(run_bundle(folder)) if folder.state else source


def load_ranker(source: str, *, registry_uri: str | None = None) -> "Ranker":
    """The ranker of a source, after its replay.

    Raises:
        BundleError, RegistryError, TrainingError: there is no such model, or it does not pass.
    """
    from recmoe.ranking.ranker import Ranker

    bundle = bundle_of(source)
    if not bundle.startswith("models:"):
        return Ranker.load(Path(bundle))
    # MLflow takes seconds to import, and a bundle in a folder does not need it.
    from recmoe.registry.registry import Registry

    found = Registry.connect(registry_uri, folder=RUNS).resolve(bundle, cache=RUNS / "cache")
    return Ranker.load(found.path, version=found.version)

"""Where a model comes from: a registry, a run folder or a bundle."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from recmoe.errors import RegistryError

if TYPE_CHECKING:
    from recmoe.ranking.items import RowStore
    from recmoe.ranking.ranker import Ranker
    from recmoe.registry.registry import RegisteredBundle, Registry

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


def import_for(source: str) -> None:
    """Import what ``load_ranker`` would for a source, so that it need not later."""
    # pyarrow imports pandas where it first makes an array.
    import pandas  # noqa: F401

    import recmoe.ranking.ranker
    import recmoe.runs.export

    if source.startswith("models:"):
        import recmoe.registry.registry  # noqa: F401


def load_ranker(
    source: str,
    *,
    runs: Path = RUNS,
    registry_uri: str | None = None,
    strict_fields: bool = False,
    precision: Literal["fp32", "bf16"] = "fp32",
    device: str = "cpu",
    batch_candidates: int | None = None,
    items: "RowStore | str | None" = None,
    items_known_bytes: int = 0,
    users: "RowStore | str | None" = None,
    on_found: "Callable[[RegisteredBundle], None]" = lambda _: None,
) -> "Ranker":
    """The ranker of ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, a run or a bundle, after its replay.

    Args:
        runs: where the local registry is, and where versions of a remote one are kept.
        registry_uri: registry to ask; by default MLFLOW_TRACKING_URI, else the one in ``runs``.
        strict_fields: whether a request may not hold fields that the model does not know.
        precision: of matrix products.
        device, batch_candidates: see ``Ranker``.
        items, users: stores, or the folders or Redis servers where they lie; see ``Ranker.with_stores``.
        items_known_bytes: see there.
        on_found: called with a version of the registry once its bundle is on this machine.

    Raises:
        BundleError, RegistryError, TrainingError: there is no such model, or it does not pass.
        SchemaError, DataError: the items or users are not a store, or not one for this model.
        ServingError: there is no such device.
        StoreError: a store does not answer.
    """
    from recmoe.ranking.items import open_store
    from recmoe.ranking.ranker import Ranker

    bundle = bundle_of(source)
    load = partial(
        Ranker.load,
        strict_fields=strict_fields,
        precision=precision,
        device=device,
        batch_candidates=batch_candidates,
        items=open_store(items, "item") if isinstance(items, str) else items,
        items_known_bytes=items_known_bytes,
        users=open_store(users, "user") if isinstance(users, str) else users,
    )
    if not bundle.startswith("models:"):
        return load(Path(bundle))
    # MLflow takes seconds to import, and a bundle in a folder does not need it.
    from recmoe.registry.registry import Registry

    found = Registry.connect(registry_uri, folder=runs).resolve(bundle, cache=runs / "cache")
    on_found(found)
    return load(found.path, name=found.name, version=found.version)


class NamedVersions:
    """The versions that the aliases of a registered model name, asked for again and again.

    Args:
        name: of the model.
        alias: the one that was asked for.
        runs, registry_uri: see ``load_ranker``.
    """

    def __init__(self, name: str, alias: str, *, runs: Path = RUNS, registry_uri: str | None = None) -> None:
        self.name, self.alias = name, alias
        self._runs, self._registry_uri = runs, registry_uri
        self._registry: Registry | None = None

    @classmethod
    def of(cls, source: str, *, runs: Path = RUNS, registry_uri: str | None = None) -> "NamedVersions | None":
        """Those of ``models:/NAME@ALIAS``; None for a source that names no alias."""
        if not source.startswith("models:"):
            return None
        from recmoe.registry.registry import split_alias

        found = split_alias(source)
        return None if found is None else cls(*found, runs=runs, registry_uri=registry_uri)

    def read(self) -> Mapping[str, str]:
        """Versions by alias, as they are now.

        Raises:
            RegistryError: no such model, or the registry does not answer.
        """
        from recmoe.registry.registry import Registry

        try:
            if self._registry is None:
                self._registry = Registry.connect(self._registry_uri, folder=self._runs)
            return self._registry.aliases(self.name)
        except RegistryError:
            # Another connection may do better.
            self._registry = None
            raise

"""ModelSource: where the models of a server come from."""

import os
import queue
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from recmoe.errors import BundleError, ServingError
from recmoe.ranking.ranker import Ranker
from recmoe.runs.source import NamedVersions, load_ranker
from serving.metrics import ServingMetrics
from serving.models.holder import ServedModels
from serving.models.live import check_live
from serving.models.metrics import ModelMetrics
from serving.models.refusal import Refusal, Role
from serving.models.watch import ModelWatch
from serving.orders import SHARED_METRICS, ReadyModel, WorkerCommand
from serving.settings import ServeSettings
from serving.stores import ServedStores, StoreWatch

if TYPE_CHECKING:
    from recmoe.registry.registry import RegisteredBundle

_NEED_AN_ALIAS = ("webhook_secret_file", "challenger_share", "shadow_share")


@dataclass(frozen=True)
class ModelSource:
    """What a server was asked to serve, and how it is loaded."""

    source: str
    """``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or the folder of a run or a bundle."""
    runs: Path
    """See ``load_ranker``."""
    settings: ServeSettings

    @cached_property
    def stores(self) -> ServedStores:
        """Where its models look up items and users."""
        return ServedStores(self.settings)

    def load_as(
        self, others: ReadyModel | None, *, on_found: "Callable[[RegisteredBundle], None]" = lambda _: None
    ) -> Ranker:
        """The first ranker: that of the source, or of what others serve. Raises what ``load_ranker`` does.

        Args:
            on_found: see ``load_ranker``.

        Raises:
            BundleError: it is not what others serve any more.
        """
        if others is None:
            return self._load(self.source, on_found)
        ranker = self._load(others.source, on_found)
        if ranker.info.digest != others.digest:
            raise BundleError(f"{others.source} has changed since the server was started; start the server anew")
        return ranker

    def load_version(
        self, name: str, version: str, *, on_found: "Callable[[RegisteredBundle], None]" = lambda _: None
    ) -> Ranker:
        """The ranker of a version of the registry, after its replay; raises what ``load_ranker`` does."""
        return self._load(f"models:/{name}/{version}", on_found)

    def named_versions(self) -> NamedVersions | None:
        """What the aliases of the model name, if the source is an alias; RegistryError where it is no source."""
        return NamedVersions.of(self.source, runs=self.runs, registry_uri=self.settings.registry)

    def _load(self, source: str, on_found: "Callable[[RegisteredBundle], None]") -> Ranker:
        stores = self.stores.get()
        return load_ranker(
            source,
            runs=self.runs,
            registry_uri=self.settings.registry,
            strict_fields=self.settings.strict_fields,
            precision=self.settings.precision,
            device=self.settings.device,
            batch_candidates=self.settings.batch_candidates,
            items=stores.get("items"),
            items_known_bytes=self.settings.items_known_bytes,
            users=stores.get("users"),
            on_found=on_found,
        )


def watch_of(
    source: ModelSource,
    models: ServedModels,
    *,
    metrics: ModelMetrics,
    commands: "queue.SimpleQueue[WorkerCommand]",
    on_swap: Callable[[Ranker], None],
    on_refusal: Callable[[Refusal], None],
    on_forgiven: Callable[[Role], None],
    on_found: "Callable[[RegisteredBundle], None]" = lambda _: None,
) -> ModelWatch | None:
    """What follows the aliases of a source; None where it names none. See ``ModelWatch`` and ``load_ranker``.

    Raises:
        ServingError: it names none, and settings are given that need one.
    """
    versions, settings = source.named_versions(), source.settings
    if versions is None:
        needing = [name for name in _NEED_AN_ALIAS if getattr(settings, name)]
        needing += ["late"] if settings.late == "light" else []
        if needing:
            raise ServingError(f"{needing[0]}: {source.source} names no alias; serve models:/NAME@ALIAS")
        return None
    aliases: dict[Role, str] = {"champion": versions.alias}
    if settings.challenger_share > 0:
        aliases["challenger"] = "challenger"
    if settings.shadow_share > 0:
        aliases["shadow"] = "shadow"
    if settings.late == "light":
        aliases["light"] = "light"
    name = versions.name
    return ModelWatch(
        models,
        versions.read,
        aliases=aliases,
        load=lambda version: source.load_version(name, version, on_found=on_found),
        metrics=metrics,
        watch_s=settings.watch_s,
        prove=_proof(models),
        turn=_turn(),
        commands=commands,
        on_swap=on_swap,
        on_refusal=on_refusal,
        on_forgiven=on_forgiven,
    )


def store_watch_of(source: ModelSource, models: ServedModels, *, metrics: ServingMetrics) -> StoreWatch | None:
    """What follows the stores of a source; None where it has none. See ``StoreWatch``."""
    if source.settings.items is None and source.settings.users is None:
        return None
    return StoreWatch(
        source.stores,
        models,
        metrics=metrics.stores,
        watch_s=source.settings.store_watch_s,
        prove=_proof(models),
        turn=_turn(),
    )


def _proof(models: ServedModels) -> Callable[[Ranker], None]:
    """Raises where a ranker does not answer the last requests as the champion does; see ``check_live``."""
    return lambda ranker: check_live(ranker, models.get(), models.live.kept())


def _turn() -> FileLock | None:
    """Is held by one worker of several at a time. What a process holds ends with it, however it ends."""
    folder = os.environ.get(SHARED_METRICS)
    return None if folder is None else FileLock(Path(folder) / "loading.lock")

"""Registry: versions of models in MLflow, aliases that name the one in use, and the log of their moves."""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from recmoe.errors import RegistryError
from recmoe.ranking.ranker import Ranker
from recmoe.registry.artifacts import Artifacts
from recmoe.registry.chain import chain_of
from recmoe.registry.moves import AliasMoves
from recmoe.registry.promotions import Promotion, PromotionLog
from recmoe.registry.transfer import Transfer, delta_of, whole
from recmoe.registry.upload import facts, upload
from recmoe.tracking.mlflow_store import MlflowStore, answering
from recmoe.tracking.names import check_alias, check_model_name

CHAMPION = "champion"
"""The alias of the version in use."""

_TOLD = 20
"""Moves that a message lists, the newest ones."""

_MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


@dataclass(frozen=True)
class RegisteredBundle:
    """A version of a model, with its bundle on this machine."""

    name: str
    version: str | None
    """None for a bundle that comes from a folder, not from a registry."""
    path: Path
    transfer: Transfer | None = None
    """What was sent when it was registered, or fetched to bring it here; None for a folder."""


class Registry:
    """Registers, promotes, rolls back and fetches versions.

    Args:
        store: an MLflow that has answered.
    """

    def __init__(self, store: MlflowStore) -> None:
        self._store = store
        self._client = store.client

    @classmethod
    def connect(cls, uri: str | None = None, *, folder: Path, timeout_s: float = 10.0) -> "Registry":
        """The registry at a URI; by default MLFLOW_TRACKING_URI, else a SQLite file in the folder.

        Raises:
            RegistryError: it does not answer.
        """
        return cls(MlflowStore.connect(uri, folder=folder, timeout_s=timeout_s))

    @property
    def uri(self) -> str:
        """As messages show it: without user and password."""
        return self._store.shown

    def register(
        self,
        bundle: Path,
        *,
        name: str | None = None,
        run_id: str | None = None,
        experiment: str = "recmoe",
        base: str | None = None,
        cache: Path | None = None,
    ) -> RegisteredBundle:
        """Make a version of a bundle, once its replay has passed.

        Args:
            name: of the model; the bundle's name by default.
            run_id: the training run it came from; a run is made for it where there is none, or another store has it.
            base: a version to send only the difference from: an alias or a number of the same model, or a source as
                for ``resolve``. Where that is more than half, the bundle is sent whole; ``transfer`` says so.
            cache: where the base is kept if its store is remote; nowhere by default.

        Raises:
            BundleError: it is damaged, or its scores differ.
            RegistryError: the name cannot be one of a model, there is no such base, or the registry fails.
        """
        if name is not None:
            check_model_name(name)
        ranker = Ranker.load(bundle)
        name = check_model_name(name or ranker.info.name)
        earlier = None if base is None else self._find(_source(name, base))
        with answering(self._store.uri), tempfile.TemporaryDirectory() as folder:
            delta, transfer = None, whole(bundle)
            if earlier is not None:
                chain = chain_of(self._client, earlier)
                before = Artifacts(self._store, cache=cache or Path(folder, "cache")).bundle(earlier)
                delta, transfer = delta_of(chain, before.path, bundle, Path(folder, "delta"))
            run = self._known_run(run_id) or self._registration_run(experiment, name)
            run_id = run.info.run_id
            logged = self._client.create_logged_model(run.info.experiment_id, name="bundle", source_run_id=run_id)
            upload(self._client, logged.model_id, bundle, ranker, delta=delta)
            self._client.finalize_logged_model(logged.model_id, "READY")
            if not self._client.search_registered_models(f"name='{name}'"):
                self._client.create_registered_model(name)
            # A database would look a models:/ source up in MLflow's global store, not in this one.
            is_served = urlsplit(self._store.uri).scheme in ("http", "https")
            made = self._client.create_model_version(
                name,
                source=f"models:/{logged.model_id}" if is_served else logged.artifact_location,
                run_id=run_id,
                tags=facts(ranker, delta=delta),
                model_id=logged.model_id,
            )
        return RegisteredBundle(name=name, version=str(made.version), path=bundle, transfer=transfer)

    def _known_run(self, run_id: str | None) -> Run | None:
        """A run of this store; None where it was recorded in another one, or nowhere."""
        if run_id is None:
            return None
        try:
            return self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _registration_run(self, experiment: str, name: str) -> Run:
        """A run for a version that comes from none that this store knows."""
        run = self._client.create_run(self._store.experiment_id(experiment), run_name=f"register {name}")
        self._client.set_terminated(run.info.run_id)
        return run

    def promote(
        self, name: str, version: str, *, alias: str = CHAMPION, by: str | None = None, note: str = ""
    ) -> Promotion:
        """Let an alias name a version, and write down who moved it when and from where.

        Raises:
            RegistryError: no such model or version, or the registry fails.
        """
        moves = self._moves(name, alias)
        self._version(name, version)
        log = moves.log()
        with answering(self._store.uri):
            return moves.move(version, by=by, note=note, action="promote", log=log)

    def rollback(
        self, name: str, *, to: str | None = None, alias: str = CHAMPION, by: str | None = None, note: str = ""
    ) -> Promotion:
        """Let an alias name the version it named before the one in use; twice goes two back.

        Args:
            to: an earlier version to go back to; the one before by default.

        Raises:
            RegistryError: there is none before it, it never was ``to``, or the registry fails.
        """
        moves = self._moves(name, alias)
        log = moves.log()
        if to is not None:
            self._version(name, to)
            if to not in log.pile()[:-1]:
                raise RegistryError(_why_not_back(name, to, alias, log))
        previous = to or log.previous(self._versions(name))
        if previous is None:
            raise RegistryError(
                f"model {name} has no earlier {alias} to go back to: {_told(log)}; promote another version instead"
            )
        with answering(self._store.uri):
            return moves.move(previous, by=by, note=note, action="rollback", log=log)

    def history(self, name: str, *, alias: str = CHAMPION) -> tuple[Promotion, ...]:
        """The moves of an alias, oldest first."""
        return self._moves(name, alias).log().entries

    def aliases(self, name: str) -> dict[str, str]:
        """The versions that a model's aliases name now, by alias.

        Raises:
            RegistryError: no such model, or the registry fails.
        """
        return {alias: str(version) for alias, version in self._model(name).aliases.items()}

    def resolve(self, source: str, *, cache: Path) -> RegisteredBundle:
        """A bundle on this machine, from ``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or a folder.

        Args:
            cache: where versions from a remote store are kept.

        Raises:
            RegistryError: the source is none of these, the registry does not have it, recmoe has not registered it, or
                another bundle lies in the place of the one that was registered.
            BundleError: the manifest of the bundle is damaged.
        """
        if not source.startswith("models:"):
            return RegisteredBundle(name=Path(source).name, version=None, path=Path(source))
        found = self._find(source)
        with answering(self._store.uri):
            local = Artifacts(self._store, cache=cache).bundle(found)
        return RegisteredBundle(str(found.name), str(found.version), path=local.path, transfer=local.transfer)

    def has(self, name: str, base: str) -> bool:
        """Whether there is a version that ``register`` could take as a base."""
        try:
            self._find(_source(name, base))
        except RegistryError:
            return False
        return True

    def _find(self, source: str) -> ModelVersion:
        """The version that models:/… names."""
        match = _MODEL_URI.fullmatch(source)
        if match is None:
            raise RegistryError(f"{source}: expected models:/NAME@ALIAS, such as @{CHAMPION}, or models:/NAME/VERSION")
        name = match["name"]
        return self._aliased(name, match["alias"]) if match["alias"] else self._version(name, match["version"])

    def _moves(self, name: str, alias: str) -> AliasMoves:
        check_alias(alias)
        return AliasMoves(self._client, name=name, alias=alias, read=lambda: self._read_log(name, alias))

    def _read_log(self, name: str, alias: str) -> tuple[PromotionLog, str | None]:
        """The log of an alias as it is written, and the version that the alias names."""
        model = self._model(name)
        named = model.aliases.get(alias)
        return PromotionLog.from_tags(model.tags, alias), None if named is None else str(named)

    def _model(self, name: str) -> RegisteredModel:
        with answering(self._store.uri):
            try:
                return self._client.get_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                raise RegistryError(f"{self.uri} has no model {name}{self._names()}") from error

    def _versions(self, name: str) -> list[str]:
        with answering(self._store.uri):
            return [str(found.version) for found in self._client.search_model_versions(f"name='{name}'")]

    def _version(self, name: str, version: str) -> ModelVersion:
        with answering(self._store.uri):
            try:
                return self._client.get_model_version(name, version)
            except MlflowException as error:
                versions = sorted(self._versions(name), key=int)
                there = f"; there are {', '.join(versions)}" if versions else self._names()
                raise RegistryError(f"{self.uri} has no version {version} of model {name}{there}") from error

    def _aliased(self, name: str, alias: str) -> ModelVersion:
        with answering(self._store.uri):
            try:
                return self._client.get_model_version_by_alias(name, alias)
            except MlflowException as error:
                versions = self._versions(name)
                what = f"; promote one of its versions: {', '.join(versions)}" if versions else self._names()
                raise RegistryError(f"{self.uri} has no model {name}@{alias}{what}") from error

    def _names(self) -> str:
        names = [model.name for model in self._client.search_registered_models()]
        return f"; its models: {', '.join(names)}" if names else "; it has no models yet, register one first"


def _source(name: str, base: str) -> str:
    """The source of an alias or a version of a model."""
    if base.startswith("models:"):
        return base
    return f"models:/{name}/{base}" if base.isdecimal() else f"models:/{name}@{base}"


def split_alias(source: str) -> tuple[str, str] | None:
    """Name and alias of ``models:/NAME@ALIAS``; None for any other source."""
    match = _MODEL_URI.fullmatch(source)
    return (match["name"], match["alias"]) if match is not None and match["alias"] else None


def _why_not_back(name: str, version: str, alias: str, log: PromotionLog) -> str:
    """Why an alias cannot go back to a version, and what to do."""
    where, told = f"version {version} of model {name}", _told(log)
    if version == log.current:
        return f"{where} is {alias} already: {told}"
    command = f"recmoe promote {name} {version}" + ("" if alias == CHAMPION else f" --alias {alias}")
    if any(entry.version == version for entry in log.entries):
        return f"{where} was rolled back from: {told}; promote it again: {command}"
    return f"{where} never was {alias}: {told}; promote it: {command}"


def _told(log: PromotionLog) -> str:
    if not log.entries:
        return "it was never promoted"
    moves = [f"{entry.action} {entry.version}" for entry in log.entries]
    return ", ".join([f"{len(moves) - _TOLD:,} moves", *moves[-_TOLD:]] if len(moves) > _TOLD else moves)

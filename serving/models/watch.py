"""ModelWatch: follows the aliases of a model, and puts what they name into its place while requests are answered."""

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime

import torch

from recmoe.errors import RecmoeError, RegistryError, StoreError
from recmoe.ranking.ranker import Ranker
from serving.models.holder import ServedModels
from serving.models.light import misfit
from serving.models.metrics import ModelMetrics
from serving.models.refusal import Refusal, Role
from serving.orders import WorkerCommand

_logger = logging.getLogger(__name__)

_CLOSE_S = 5.0
"""Seconds that a look under way gets at the end; loading a model may take longer and is left behind."""


class ModelWatch:
    """Asks every ``watch_s`` seconds what aliases name, and follows them: one thread, one model after the other.

    A champion whose alias names none any more goes on, and so does all while the registry does not answer. A version
    that cannot be used is refused: it is not tried again before its alias has named another one, or someone asks for
    it. Where the registry is at fault, or a store does not answer, it is tried again at the next look.

    Args:
        models: where rankers are put; the champion is there.
        versions: reads the versions by alias; RegistryError where it cannot.
        aliases: by role.
        load: makes the ranker of a version, after its replay.
        prove: raises where a ranker cannot take the place of a role.
        turn: is held while a model is loaded, so that one worker does after the other.
        commands: what it is told; unlike other queues, this one takes them from handlers of signals too.
        on_swap: called when there is another champion.
        on_refusal: called with what is refused for good.
        on_forgiven: called with the role of which nothing is refused any more.
    """

    def __init__(
        self,
        models: ServedModels,
        versions: Callable[[], Mapping[str, str]],
        *,
        aliases: Mapping[Role, str],
        load: Callable[[str], Ranker],
        metrics: ModelMetrics,
        watch_s: float,
        prove: Callable[[Ranker], None] = lambda _: None,
        turn: AbstractContextManager[object] | None = None,
        commands: "queue.SimpleQueue[WorkerCommand] | None" = None,
        on_swap: Callable[[Ranker], None] = lambda _: None,
        on_refusal: Callable[[Refusal], None] = lambda _: None,
        on_forgiven: Callable[[Role], None] = lambda _: None,
    ) -> None:
        self._models, self._versions, self._aliases = models, versions, aliases
        self._load_version, self._prove, self._metrics, self._watch_s = load, prove, metrics, watch_s
        self._turn = turn or nullcontext()
        self._on_swap, self._on_refusal, self._on_forgiven = on_swap, on_refusal, on_forgiven
        self._commands = commands or queue.SimpleQueue()
        self._is_closed = False
        self._trouble: str | None = None
        self._light_trouble: str | None = None
        self._passing: set[Role] = set()
        """Roles whose refusal is the fault of the registry or a store."""
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)

    def start(self) -> None:
        """Look at once, and then every so often."""
        self._thread.start()

    def tell(self, command: WorkerCommand) -> None:
        """Let it do something as soon as it is free. Returns at once."""
        self._commands.put(command)

    def close(self) -> None:
        """Look no more."""
        self._is_closed = True
        self.tell(WorkerCommand())
        if self._thread.is_alive():
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        # Loading must not take the cores of those who rank.
        torch.set_num_threads(1)
        retries = False
        while not self._is_closed:
            self._look(retries=retries)
            retries = self._wait()

    def _wait(self) -> bool:
        """Until it is time for the next look; whether that tries what was refused."""
        commands = []
        with suppress(queue.Empty):
            commands.append(self._commands.get(timeout=self._watch_s))
            while True:
                commands.append(self._commands.get_nowait())
        for command in commands:
            if command.refuses is not None:
                self._refuse_with_others(command.refuses)
        return any(command.retries for command in commands)

    def _look(self, *, retries: bool) -> None:
        try:
            named = self._versions()
            for role, alias in self._aliases.items():
                self._follow(role, named.get(alias), retries=retries)
        except RegistryError as error:
            self._metrics.registry_failed()
            self._tell_trouble(str(error))
            return
        except Exception:
            # Whatever it is, the next look may do better, and requests are answered meanwhile.
            self._metrics.registry_failed()
            _logger.exception("the aliases of the model could not be followed")
            return
        is_lost = self._aliases["champion"] not in named
        self._tell_trouble(f"no version has the alias {self._aliases['champion']} any more" if is_lost else None)
        self._tell_light_trouble(named)

    def _tell_trouble(self, trouble: str | None) -> None:
        """Log what keeps the alias from being followed, once, and that it has passed."""
        if trouble == self._trouble:
            return
        champion = self._models.get().info
        serves = f"version {champion.version} of {champion.name} is served"
        if trouble is None:
            _logger.warning("the alias can be followed again; %s", serves)
        else:
            _logger.warning("the alias cannot be followed, %s: %s", serves, trouble)
        self._trouble = trouble

    def _tell_light_trouble(self, named: Mapping[str, str]) -> None:
        """Log, once, why no version ranks what would be late, where one should."""
        alias, light, trouble = self._aliases.get("light"), self._models.light, None
        if alias is None:
            return
        if alias not in named:
            trouble = f"no version has the alias {alias}; recmoe promote MODEL VERSION --alias {alias}"
        elif light is not None:
            trouble = misfit(light, self._models.get())
        if trouble is not None and trouble != self._light_trouble:
            _logger.warning("requests that would be late are refused: %s", trouble)
        self._light_trouble = trouble

    def _follow(self, role: Role, version: str | None, *, retries: bool) -> None:
        """Let a role be what its alias names."""
        current = dict(self._models.by_role()).get(role)
        refusal = self._models.refused.get(role)
        if refusal is not None and refusal.version != version:
            self._forgive(role)
        if version is None:
            if current is not None and role != "champion":
                self._models.withdraw(role)
                self._note(role, "removed", current)
            return
        if current is not None and current.info.version == version:
            return
        if refusal is not None and refusal.version == version and role not in self._passing and not retries:
            return
        self._take(role, version)

    def _take(self, role: Role, version: str) -> None:
        """Put a version in its place, unless it is refused."""
        kept = self._models.find(version)
        if kept is not None:
            # The champion before has proved itself by what it answered: going back does not wait.
            ranker = kept if kept is self._models.previous else self._made(role, version, lambda: kept)
        else:
            with self._turn:
                if not self._is_named(role, version):
                    return
                ranker = self._made(role, version, lambda: self._load_version(version))
            if ranker is not None and not self._is_named(role, version):
                self._metrics.swap(role, "superseded")
                return
        if ranker is None:
            return
        self._forgive(role)
        self._models.use(role, ranker)
        self._note(role, "loaded" if kept is None else "kept", ranker)
        if role == "champion":
            self._on_swap(ranker)

    def _made(self, role: Role, version: str, make: Callable[[], Ranker]) -> Ranker | None:
        """A ranker that has been proved; None where it is refused."""
        try:
            ranker = make()
            self._prove(ranker)
        except Exception as error:
            self._refuse(role, version, error)
            return None
        return ranker

    def _is_named(self, role: Role, version: str) -> bool:
        """Whether an alias still names a version; another look comes at once where it does not."""
        if self._versions().get(self._aliases[role]) == version:
            return True
        self.tell(WorkerCommand(looks=True))
        return False

    def _note(self, role: Role, outcome: str, ranker: Ranker) -> None:
        self._metrics.swap(role, outcome)
        self._metrics.update(self._models)
        _logger.info("%s: version %s of %s is %s", role, ranker.info.version, ranker.info.name, outcome)

    def _refuse(self, role: Role, version: str, error: Exception) -> None:
        reason = str(error) if isinstance(error, RecmoeError) else f"{type(error).__name__}: {error}"
        before = self._models.refused.get(role)
        self._metrics.swap(role, "refused")
        if isinstance(error, RegistryError | StoreError):
            self._passing.add(role)
        else:
            self._passing.discard(role)
        if before is not None and (before.version, before.reason) == (version, reason):
            return
        refusal = Refusal(role=role, version=version, reason=reason, at=datetime.now(UTC).isoformat(timespec="seconds"))
        self._models.refused[role] = refusal
        self._metrics.update(self._models)
        _logger.error("version %s is refused as %s, what was there before stays: %s", version, role, reason)
        if role not in self._passing:
            self._on_refusal(refusal)

    def _refuse_with_others(self, refusal: Refusal) -> None:
        """Do not use what another worker has refused, and go back where it is in use: all refuse, or none does."""
        role, models = refusal.role, self._models
        current = dict(models.by_role()).get(role)
        if current is not None and current.info.version == refusal.version:
            if role != "champion":
                models.withdraw(role)
                self._note(role, "withdrawn", current)
            elif models.previous is not None:
                models.use(role, models.previous)
                self._note(role, "withdrawn", current)
                self._on_swap(models.get())
        models.refused[role] = refusal
        self._metrics.update(models)
        _logger.error("version %s is refused as %s, as another worker has", refusal.version, role)

    def _forgive(self, role: Role) -> None:
        """Nothing is refused for a role any more."""
        if self._models.refused.pop(role, None) is not None:
            self._metrics.update(self._models)
            self._on_forgiven(role)
        self._passing.discard(role)

"""ServedModels: the rankers of an app by their role, and why there is none."""

import logging
import threading
import time
from collections.abc import Callable, Iterator

from recmoe.ranking.ranker import Ranker
from recmoe.ranking.request import RankOptions
from serving.models.light import misfit
from serving.models.live import LiveRequests
from serving.models.refusal import Refusal, Role
from serving.models.split import Arm, UserSplit

_logger = logging.getLogger(__name__)

_PLACES = ("ranker", "challenger", "shadow", "light", "previous")


class NotReadyError(Exception):
    """No model has passed its replay yet."""


class ServedModels:
    """The rankers of an app: the champion is absent until it has been loaded and has passed its replay.

    A swap is one assignment. A request takes a ranker once and keeps it to its end, so it never meets two.

    Args:
        load: makes the first champion.
        live: keeps the last requests.
        split: who is answered by the challenger, where there is one.
        on_ready: called once it is there.
        on_failure: called if ``load`` raised; ``error`` says what. Without it the log does.
    """

    def __init__(
        self,
        load: Callable[[], Ranker],
        *,
        live: LiveRequests | None = None,
        split: UserSplit | None = None,
        on_ready: Callable[[Ranker], None] | None = None,
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        self._load, self._on_ready, self._on_failure = load, on_ready, on_failure
        self.live = live or LiveRequests(max_requests=0, max_bytes=0)
        self._split = split
        self._lock = threading.Lock()
        self.ranker: Ranker | None = None
        """The champion."""
        self.previous: Ranker | None = None
        """The champion before, whole, for a rollback that loads nothing."""
        self.challenger: Ranker | None = None
        self.shadow: Ranker | None = None
        self.light: Ranker | None = None
        """Answers what the champion would answer too late, if it can; see ``lighter``."""
        self.on_light: Callable[[Ranker], None] = lambda _: None
        """Called before a ranker comes into that place."""
        self.refused: dict[Role, Refusal] = {}
        """Versions that aliases name now and that were not taken."""
        self.error: Exception | None = None
        self.loading_s = 0.0
        """What loading and the replay took."""
        self.is_draining = False
        """Whether the server was told to stop; what it has taken on is still answered."""

    def get(self) -> Ranker:
        """The champion; NotReadyError while there is none."""
        if self.ranker is None:
            raise NotReadyError(self.absent)
        return self.ranker

    def choose(self, request: RankOptions) -> tuple[Ranker, Arm | None]:
        """Who answers a request, and by which arm of the split; None where all are the champion's."""
        champion, challenger = self.get(), self.challenger
        if challenger is None or self._split is None:
            return champion, None
        arm = self._split.arm(request)
        return (challenger if arm == "challenger" else champion), arm

    @property
    def lighter(self) -> Ranker | None:
        """Who answers in the place of the champion, where that would be late; None where there is none that can."""
        champion, light = self.ranker, self.light
        return light if champion is not None and light is not None and misfit(light, champion) is None else None

    def get_for_new(self) -> Ranker:
        """The champion for requests that are still to come; NotReadyError where they should go elsewhere."""
        if self.is_draining:
            raise NotReadyError("draining: the server was told to stop")
        return self.get()

    def drain(self) -> None:
        """The server was told to stop."""
        self.is_draining = True

    @property
    def absent(self) -> str:
        """Why there is no champion."""
        return f"no model: {self.error}" if self.error else "the model is being loaded and replayed"

    def by_role(self) -> Iterator[tuple[Role, Ranker]]:
        """What is in use, the champion first."""
        in_use: dict[Role, Ranker | None] = {
            "champion": self.ranker,
            "challenger": self.challenger,
            "shadow": self.shadow,
            "light": self.light,
        }
        for role, ranker in in_use.items():
            if ranker is not None:
                yield role, ranker

    def use(self, role: Role, ranker: Ranker) -> None:
        """Put a ranker in its place; the champion before is kept."""
        if role == "light":
            self.on_light(ranker)
        with self._lock:
            if role == "champion":
                self.previous, self.ranker = self.ranker, ranker
            else:
                setattr(self, role, ranker)

    def replace(self, before: Ranker, ranker: Ranker) -> None:
        """Put a ranker of the same model wherever another one is."""
        with self._lock:
            for place in _PLACES:
                if getattr(self, place) is before:
                    setattr(self, place, ranker)

    def every(self) -> list[Ranker]:
        """All that are in use or kept, the champion first."""
        found = [ranker for place in _PLACES if (ranker := getattr(self, place)) is not None]
        return list({id(ranker): ranker for ranker in found}.values())

    def withdraw(self, role: Role) -> None:
        """Leave the place of another role than the champion's empty."""
        assert role != "champion"
        setattr(self, role, None)

    def find(self, version: str) -> Ranker | None:
        """A ranker of a version of the model that is in use or kept."""
        return next((ranker for ranker in self.every() if ranker.info.version == version), None)

    def load(self) -> None:
        """Load the first champion; runs on a thread of its own while the app answers already."""
        start_s = time.perf_counter()
        try:
            ranker = self._load()
        except Exception as error:
            self.error = error
            if self._on_failure is not None:
                self._on_failure()
            else:
                _logger.error("the model cannot be served: %s", error)
            return
        self.loading_s = time.perf_counter() - start_s
        self.ranker = ranker
        if self._on_ready is not None:
            self._on_ready(ranker)

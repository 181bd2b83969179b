"""ModelHolder: the ranker of an app, and why there is none."""

import logging
import time
from collections.abc import Callable

from recmoe.ranking.ranker import Ranker
from serving.problem import NotReadyError

_logger = logging.getLogger(__name__)


class ModelHolder:
    """The ranker of an app: absent until it has been loaded and has passed its replay.

    Args:
        load: makes it.
        on_ready: called once it is there.
        on_failure: called if ``load`` raised; ``error`` says what. Without it the log does.
    """

    def __init__(
        self,
        load: Callable[[], Ranker],
        *,
        on_ready: Callable[[Ranker], None] | None = None,
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        self._load, self._on_ready, self._on_failure = load, on_ready, on_failure
        self.ranker: Ranker | None = None
        self.error: Exception | None = None
        self.loading_s = 0.0
        """What loading and the replay took."""
        self.is_draining = False
        """Whether the server was told to stop; what it has taken on is still answered."""

    def get(self) -> Ranker:
        """The ranker; NotReadyError while there is none."""
        if self.ranker is None:
            raise NotReadyError(self.absent)
        return self.ranker

    def get_for_new(self) -> Ranker:
        """The ranker for requests that are still to come; NotReadyError where they should go elsewhere."""
        if self.is_draining:
            raise NotReadyError("draining: the server was told to stop")
        return self.get()

    def drain(self) -> None:
        """The server was told to stop."""
        self.is_draining = True

    @property
    def absent(self) -> str:
        """Why there is no ranker."""
        return f"no model: {self.error}" if self.error else "the model is being loaded and replayed"

    def load(self) -> None:
        """Load it; runs on a thread of its own while the app answers already."""
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

"""ShadowComparison: lets another model rank a share of the requests, and measures how its scores differ."""

import itertools
import logging
import queue
import threading
from dataclasses import dataclass

import orjson
import torch
from pydantic import JsonValue

from recmoe.ranking.ranker import Ranker
from recmoe.ranking.request import RankedItem, RankRequest, RankResponse
from serving.models.metrics import ModelMetrics

_logger = logging.getLogger(__name__)

_MAX_WAITING = 16
"""Requests that wait for the shadow; those of one moment differ little, so more would tell little."""
_TOP = 10
_GOLDEN = 0.6180339887498949
"""Multiples of it, without their whole parts, fill the range from 0 to 1 evenly."""


@dataclass(frozen=True)
class _Copy:
    """A request that has been answered."""

    shadow: Ranker
    request: RankRequest
    response: RankResponse


class ShadowComparison:
    """Ranks copies of requests on a thread of its own; while that is busy, some wait, and more are dropped and counted.

    Every n-th request with the fraction of n · 0.618… below the share is copied: as many as asked for, evenly, and
    with no beat of the clients in it.

    Args:
        share: of the champion's requests.
    """

    def __init__(self, *, share: float, metrics: ModelMetrics) -> None:
        self._share, self._metrics = share, metrics
        self._numbers = itertools.count(1)
        self._waiting: queue.Queue[_Copy | None] = queue.Queue(_MAX_WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def offer(self, shadow: Ranker | None, request: RankRequest, response: RankResponse) -> None:
        """Compare, later and perhaps; returns at once."""
        if shadow is None or next(self._numbers) * _GOLDEN % 1 >= self._share:
            return
        self._start()
        try:
            self._waiting.put_nowait(_Copy(shadow, request, response))
        except queue.Full:
            self._metrics.shadowed("dropped")

    def close(self) -> None:
        """End the thread once it has ranked what waits."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        torch.set_num_threads(1)
        while (copy := self._waiting.get()) is not None:
            try:
                self._compare(copy)
            except Exception as error:
                # No one waits for its answer; that it has none is what is to be known.
                self._metrics.shadowed("error")
                _logger.info("the shadow, version %s, failed: %s", copy.shadow.info.version, error)

    def _compare(self, copy: _Copy) -> None:
        # All candidates: the best of the champion may be far down with the shadow.
        whole = copy.request.model_copy(update={"top_k": None, "score": copy.response.score.name})
        shadow = copy.shadow.rank(whole).items
        champion = copy.response.items
        others = _scores(shadow)
        pairs = [(score, others.get(item)) for item, score in _scores(champion).items()]
        differences = [abs(one - other) for one, other in pairs if one is not None and other is not None]
        top = min(_TOP, len(champion))
        shared = {_key(item) for item in champion[:top]} & {_key(item) for item in shadow[:top]}
        self._metrics.compared(differences, agreement=len(shared) / top)


def _key(item: RankedItem) -> JsonValue:
    """The item's id, as far as it can be a key."""
    return item.item_id if isinstance(item.item_id, str | int) else orjson.dumps(item.item_id).decode()


def _scores(items: list[RankedItem]) -> dict[JsonValue, float | None]:
    """Scores by item; of candidates with one id, the best."""
    return {_key(item): item.score for item in reversed(items)}

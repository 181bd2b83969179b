"""ShadowComparison: lets another model rank a share of the requests, and measures how its scores differ."""

import itertools
import logging
import queue
import threading
from contextvars import Context, copy_context
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from recmoe.errors import RequestError
from recmoe.ranking.columns import AnyRequest
from recmoe.ranking.ranked import Ranked
from recmoe.ranking.ranker import Ranker
from recmoe.ranking.request import ColumnRequest
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
    request: AnyRequest
    ranked: Ranked
    """By the champion."""
    context: Context = field(default_factory=copy_context)
    """Of the request: what is logged of the shadow belongs to it too."""


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

    def offer(self, shadow: Ranker | None, request: AnyRequest, ranked: Ranked) -> None:
        """Compare, later and perhaps; returns at once."""
        if shadow is None or next(self._numbers) * _GOLDEN % 1 >= self._share:
            return
        self._start()
        try:
            self._waiting.put_nowait(_Copy(shadow, request, ranked))
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
            copy.context.run(self._attempt, copy)

    def _attempt(self, copy: _Copy) -> None:
        try:
            self._compare(copy)
        except Exception as error:
            # No one waits for its answer; that it has none is what is to be known.
            self._metrics.shadowed("error")
            # The error of a request names what was found there, which is the user's.
            reason = f"it refuses {error.field}" if isinstance(error, RequestError) else error
            _logger.info("the shadow, version %s, failed: %s", copy.shadow.info.version, reason)

    def _compare(self, copy: _Copy) -> None:
        # All candidates: the best of the champion may be far down with the shadow.
        changes = {"top_k": None, "score": copy.ranked.score.name}
        request = copy.request
        if isinstance(request, ColumnRequest):
            whole: AnyRequest = replace(request, options=request.options.model_copy(update=changes))
        else:
            whole = request.model_copy(update=changes)
        (shadow,) = copy.shadow.rank_columns([copy.shadow.decode(whole)])
        if isinstance(shadow, RequestError):
            raise shadow
        champion = copy.ranked
        differences_C = np.abs(champion.scores_C - shadow.scores_C)
        top = min(_TOP, len(champion.order_K))
        shared = {*champion.order_K[:top].tolist()} & {*shadow.order_K[:top].tolist()}
        self._metrics.compared(differences_C, agreement=len(shared) / top)

"""TogetherEngine: what waits while the model computes is computed together next."""

# R requests, C candidates, T tasks

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recmoe.features.batch import Batch
from recmoe.features.blocks import concatenated
from recmoe.features.layout import OWN_SIDES, SHARED_SIDES
from recmoe.model.known_items import KnownCandidates
from recmoe.ranking.engine.engine import Engine

MAX_REQUESTS = 64


@dataclass(eq=False)
class _Waiting:
    """One call, and its outcome."""

    shared: Batch
    own: Batch
    request_C: Tensor
    predictions_CT: NDArray[np.float32] | None = None
    error: BaseException | None = None
    is_done: bool = field(default=False)


class TogetherEngine:
    """Joins the calls of several threads: one computes for all who wait, the others go on when it has. See ``Engine``.

    Nothing waits for company: a call that finds the model free is computed at once, alone. Those that come meanwhile
    are the next pass, in the order of arrival and as many as there is room for::

        A arrives    computes A
        B, C, D         wait        B computes B, C, D
        E                              waits           E computes E

    Where a pass fails, each of its calls is computed alone: what one of them cannot have is not the others' fault.

    Args:
        engine: computes.
        max_candidates: of one pass; a call with more is computed alone.
    """

    def __init__(self, engine: Engine, *, max_candidates: int) -> None:
        self._engine = engine
        self._max_candidates = max_candidates
        layout = engine.model.input_layer.layout
        self._shared, self._own = layout.select(SHARED_SIDES), layout.select(OWN_SIDES)
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._is_busy = False
        self.model, self.device, self.keeps_products = engine.model, engine.device, engine.keeps_products
        self.num_passes = 0
        """How often the engine has computed."""

    @property
    def num_waiting(self) -> int:
        """Calls that no thread computes yet."""
        return len(self._waiting)

    def predict(
        self, shared: Batch, own: Batch, request_C: Tensor, known: KnownCandidates | None = None
    ) -> NDArray[np.float32]:
        """predictions_CT; see ``Engine``."""
        if known is not None:
            return self._engine.predict(shared, own, request_C, known)
        call = _Waiting(shared, own, request_C)
        with self._changed:
            self._waiting.append(call)
        while (taken := self._turn(call)) is not None:
            try:
                self._compute(taken)
            except BaseException as error:
                # This thread is interrupted; those who wait for it are told.
                for one in taken:
                    one.error, one.is_done = error, True
                raise
            finally:
                with self._changed:
                    self._is_busy = False
                    self._changed.notify_all()
        if call.error is not None:
            raise call.error
        assert call.predictions_CT is not None
        return call.predictions_CT

    def computing(self) -> AbstractContextManager[None]:
        """Inside, the model computes as it serves."""
        return self._engine.computing()

    def warm_up(self, shared: Batch, own: Batch) -> None:
        """See ``Engine``."""
        self._engine.warm_up(shared, own)

    def _turn(self, call: _Waiting) -> list[_Waiting] | None:
        """The calls that this thread is to compute; None once its own is done."""
        with self._changed:
            self._changed.wait_for(lambda: call.is_done or not self._is_busy)
            if call.is_done:
                return None
            self._is_busy = True
            self.num_passes += 1
            taken = [self._waiting.popleft()]
            num_candidates, num_requests = taken[0].own.num_rows, taken[0].shared.num_rows
            while self._waiting:
                num_candidates += self._waiting[0].own.num_rows
                num_requests += self._waiting[0].shared.num_rows
                if num_candidates > self._max_candidates or num_requests > MAX_REQUESTS:
                    break
                taken.append(self._waiting.popleft())
            return taken

    def _compute(self, calls: Sequence[_Waiting]) -> None:
        """Compute some calls in one pass."""
        try:
            first_requests = np.cumsum([0, *(call.shared.num_rows for call in calls)])
            predictions_CT = self._engine.predict(
                concatenated([call.shared for call in calls], self._shared),
                concatenated([call.own for call in calls], self._own),
                torch.cat([call.request_C + int(first) for call, first in zip(calls, first_requests, strict=False)]),
            )
        except Exception as error:
            if len(calls) > 1:
                for call in calls:
                    self._compute([call])
                return
            calls[0].error, calls[0].is_done = error, True
            return
        ends = np.cumsum([call.own.num_rows for call in calls])
        for call, found_CT in zip(calls, np.split(predictions_CT, ends[:-1]), strict=True):
            call.predictions_CT, call.is_done = found_CT, True

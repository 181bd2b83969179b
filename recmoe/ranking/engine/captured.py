"""CapturedEngine: predictions of candidates by recorded computations of a few fixed sizes."""

# R requests, C candidates, T tasks

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recmoe.export.replay import relative_difference
from recmoe.features.batch import Batch
from recmoe.features.layout import OWN_SIDES, SHARED_SIDES, InputLayout
from recmoe.features.recombined import selected
from recmoe.model import MultiTaskRanker
from recmoe.model.known_items import KnownCandidates
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.experts.stack import TakesGroups
from recmoe.ranking.engine.eager import EagerEngine
from recmoe.ranking.engine.hazards import first_hazard
from recmoe.ranking.engine.recording import Recorder
from recmoe.ranking.engine.shapes import SideShape, SideShapes, StaticRows, aligned, views
from recmoe.ranking.precision import TOLERANCES, Precision

_logger = logging.getLogger(__name__)

REQUESTS = (1, 4, 16, 64)
"""Requests that are ranked at once, padded to one of these."""
CANDIDATES = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
"""Candidates of all of them."""


_Candidates = tuple[Batch, Batch, Tensor]
"""Rows of requests, rows of candidates, and the request of each."""


class _Sides(NamedTuple):
    shared: SideShape
    own: SideShape

    def holds(self, other: "_Sides") -> bool:
        return self.shared.holds(other.shared) and self.own.holds(other.own)

    def joined(self, other: "_Sides") -> "_Sides":
        return _Sides(self.shared.joined(other.shared), self.own.joined(other.own))


class CapturedEngine:
    """Ranks in sizes for which the whole forward pass is recorded once, and then repeated. See ``Engine``.

    Rows are padded to the next size, and cut off again. There is one recording per number of requests and candidates:
    where lists of a request are longer than its room for ids, a larger one takes its place. Threads take turns.

    Every recording is compared with the plain computation of the rows that it was made with. Where they differ, or a
    model does what cannot be recorded, every call is computed operation by operation, and the log says why.

    Args:
        model: on the device; the engine's own, for it is changed so that it can be recorded.
        device: the model's.
        precision: of matrix products.
        recorder: of that device.
        requests, candidates: sizes, from small to large.
    """

    keeps_products = False

    def __init__(
        self,
        model: MultiTaskRanker,
        *,
        device: torch.device,
        precision: Precision,
        recorder: Recorder,
        requests: Sequence[int] = REQUESTS,
        candidates: Sequence[int] = CANDIDATES,
    ) -> None:
        self.model, self.device, self.precision = model, device, precision
        self._eager = EagerEngine(model, device=device, precision=precision)
        self._recorder = recorder
        layout = model.input_layer.layout
        self._shared = SideShapes(layout.select(SHARED_SIDES), requests)
        self._own = SideShapes(layout.select(OWN_SIDES), candidates)
        self._recorded: dict[tuple[int, int], _Recorded] = {}
        self._lock = threading.Lock()
        self.hazard: str | None = None
        """Why nothing is recorded; None while that is not so."""
        self.num_recorded = 0
        """Computations that were recorded, those among them that others have replaced."""
        for module in model.modules():
            if isinstance(module, ExpertLayer):
                # Grouped products find their rows by themselves, but not in float32; all else counts them on the host.
                is_grouped = isinstance(module.experts, TakesGroups) and module.experts.is_grouped
                module.computes_all = precision == "fp32" or not is_grouped

    def predict(
        self, shared: Batch, own: Batch, request_C: Tensor, known: KnownCandidates | None = None
    ) -> NDArray[np.float32]:
        """predictions_CT; see ``Engine``."""
        assert known is None, "what is recorded knows no items"
        parts = self._parts(shared, own, request_C)
        found = [self._predict(*part) for part in parts]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def computing(self) -> AbstractContextManager[None]:
        """Inside, the model computes as it serves."""
        return self._eager.computing()

    def warm_up(self, shared: Batch, own: Batch) -> None:
        """Record every size, so that no request has to wait for it.

        Args:
            shared, own: some rows, as requests will hold them.
        """
        for num_requests in self._shared.rungs:
            some = _repeated(shared, self._shared.layout, num_requests - self._shared.spare(num_requests))
            for num_candidates in self._own.rungs:
                size = num_candidates - self._own.spare(num_candidates)
                if self.hazard is None and size >= some.num_rows:
                    self._predict(
                        some, _repeated(own, self._own.layout, size), torch.arange(size) * some.num_rows // size
                    )

    def _parts(self, shared: Batch, own: Batch, request_C: Tensor) -> Iterator[tuple[Batch, Batch, Tensor]]:
        """Candidates and their requests, which stand in the same order, cut into what fits into the largest size."""
        num_rows = own.num_rows
        if shared.num_rows <= self._shared.most_rows and num_rows <= self._own.most_rows:
            yield shared, own, request_C
            return
        first = 0
        while first < num_rows:
            first_request = int(request_C[first])
            # The first candidate of a request for which there is no room.
            end = int(torch.searchsorted(request_C, first_request + self._shared.most_rows))
            end = min(end, first + self._own.most_rows)
            last_request = int(request_C[end - 1])
            yield (
                selected(shared, self._shared.layout, torch.arange(first_request, last_request + 1)),
                selected(own, self._own.layout, torch.arange(first, end)),
                request_C[first:end] - first_request,
            )
            first = end

    def _predict(self, shared: Batch, own: Batch, request_C: Tensor) -> NDArray[np.float32]:
        shapes = self._shared.of(shared), self._own.of(own)
        if self.hazard is None and shapes[0] is not None and shapes[1] is not None:
            with self._lock:
                recorded = self._recording(_Sides(shapes[0], shapes[1]), (shared, own, request_C))
                if recorded is not None:
                    return recorded.predict(shared, own, request_C)
        return self._eager.predict(shared, own, request_C)

    def _recording(self, sides: _Sides, candidates: _Candidates) -> "_Recorded | None":
        """What holds candidates of such a shape; None where nothing can be recorded."""
        key = sides.shared.num_rows, sides.own.num_rows
        found = self._recorded.get(key)
        if found is not None and found.sides.holds(sides):
            return found
        if found is not None:
            sides = found.sides.joined(sides)
        # What is replaced gives back its memory first.
        self._recorded.pop(key, None)
        del found
        rows = StaticRows(sides.shared, self._shared.layout), StaticRows(sides.own, self._own.layout)
        recorded = _Recorded(sides, rows, self._recorder)
        try:
            hazard = recorded.record(candidates, self._eager, self._recorder) or self._difference(recorded, candidates)
        except RuntimeError as error:
            hazard = " ".join(str(error).split())
        if hazard is not None:
            self._refuse(hazard)
            return None
        self._recorded[key] = recorded
        self.num_recorded += 1
        return recorded

    def _difference(self, recorded: "_Recorded", candidates: _Candidates) -> str | None:
        """What is wrong with predictions of a recording, compared with those that are computed call by call."""
        found_CT, expected_CT = recorded.predict(*candidates), self._eager.predict(*candidates)
        largest, tolerance = relative_difference(found_CT, expected_CT).max(), TOLERANCES[self.precision]
        # Not "beyond": a comparison with NaN is false, and NaN must not pass.
        return None if largest <= tolerance else f"its predictions differ by {largest:.1e}, which may be {tolerance:g}"

    def _refuse(self, reason: str) -> None:
        self.hazard = reason
        self._recorded.clear()
        _logger.warning("this model is ranked operation by operation, nothing of it is recorded: %s", reason)


class _Recorded:
    """One size: its buffers, and what computes from them."""

    def __init__(self, sides: _Sides, rows: tuple[StaticRows, StaticRows], recorder: Recorder) -> None:
        self.sides = sides
        self._rows = rows
        self._requests: tuple[torch.dtype, tuple[int, ...]] = (torch.int64, (sides.own.num_rows,))
        ends = np.cumsum([aligned(*self._requests), *(side.num_bytes for side in rows)]).tolist()
        self._bounds = list(zip([0, *ends[:-1]], ends, strict=True))
        self._staging = recorder.staging(ends[-1])
        requests, *contents = self._cut(self._staging.host)
        self._request_C: NDArray[np.int64] = views(requests, [self._requests])[0].numpy()
        self._writers = [side.writer(content) for side, content in zip(rows, contents, strict=True)]
        self._run: Callable[[], Tensor] | None = None

    def record(self, candidates: _Candidates, eager: EagerEngine, recorder: Recorder) -> str | None:
        """Record the computation, or say which operation forbids it; RuntimeError where that shows in doing it.

        Args:
            candidates: some that fit: what is computed on the way must be able to read its rows.
        """
        compute = self._computation(eager)
        self._fill(*candidates)
        self._staging.upload()
        # What a model makes once and keeps is there from now on.
        compute()
        hazard = first_hazard(compute)
        if hazard is None:
            self._run = recorder.record(compute, self._staging)
        return hazard

    def predict(self, shared: Batch, own: Batch, request_C: Tensor) -> NDArray[np.float32]:
        """predictions_CT of rows that fit."""
        assert self._run is not None, "it is recorded first"
        self._fill(shared, own, request_C)
        predictions: NDArray[np.float32] = self._run()[: own.num_rows].numpy().copy()
        return predictions

    def _fill(self, shared: Batch, own: Batch, request_C: Tensor) -> None:
        self._request_C[: own.num_rows] = request_C.numpy()
        self._request_C[own.num_rows :] = 0
        for writer, batch in zip(self._writers, (shared, own), strict=True):
            writer.write(batch)

    def _computation(self, eager: EagerEngine) -> Callable[[], Tensor]:
        requests, *sides = self._cut(self._staging.device)
        (request_C,) = views(requests, [self._requests])
        shared, own = (rows.batch(content) for rows, content in zip(self._rows, sides, strict=True))
        return partial(_compute, eager, shared, own, request_C)

    def _cut(self, content: Tensor) -> list[Tensor]:
        return [content[start:end] for start, end in self._bounds]


def _compute(eager: EagerEngine, shared: Batch, own: Batch, request_C: Tensor) -> Tensor:
    with eager.computing():
        return eager.model.predict_sided(shared, own, request_C)


def _repeated(batch: Batch, layout: InputLayout, num_rows: int) -> Batch:
    """So many rows: those of a batch, again and again."""
    return selected(batch, layout, torch.arange(num_rows) % batch.num_rows)

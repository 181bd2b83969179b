"""Ranker: a request → items in the order to show them."""

# N flat rows, R requests, C candidates of all requests, T tasks

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from recmoe.errors import BundleError, ConfigError, DataError, RequestError, SchemaError
from recmoe.export.bundle import ModelBundle
from recmoe.features.batch import Batch
from recmoe.features.blocks import concatenated, same
from recmoe.features.layout import OWN_SIDES, SHARED_SIDES, Side
from recmoe.json_document import first_problem
from recmoe.model.known_items import KnownCandidates
from recmoe.products import autocast
from recmoe.ranking.clock import Clock
from recmoe.ranking.columns import RequestDecoder
from recmoe.ranking.feature_warnings import FeatureWarnings
from recmoe.ranking.items.candidates import CandidateRows, EncodedCandidates, StoredItems
from recmoe.ranking.items.known import check_known, know_items, known_candidates
from recmoe.ranking.items.store import ItemStore
from recmoe.ranking.precision import TOLERANCES, Precision, at_precision
from recmoe.ranking.request import FeatureWarning, ModelInfo, RankedItem, RankRequest, RankResponse, ScoreInfo
from recmoe.ranking.score import RankingConfig, unknown_name
from recmoe.ranking.stages import EncodedRequest, ReadRequest
from recmoe.ranking.values import RequestColumn

A = TypeVar("A")
B = TypeVar("B")

_CHUNK_ROWS = 8192
"""Flat rows per forward pass: enough to keep the cores busy, little memory."""


class Ranker:
    """Ranks with the model of a bundle. Holds no state of requests: threads may share it.

    Args:
        bundle: the model; its replay is checked by ``load``, not here.
        name: what it is registered as; by default the bundle's name.
        version: its version in the registry.
        strict_fields: whether a field that the model does not know is an error, whatever the bundle's config says.
        precision: of matrix products.

    Raises:
        BundleError: its section ``ranking`` is not valid.
        ServingError: the processor has no bf16 arithmetic.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        *,
        name: str | None = None,
        version: str | None = None,
        strict_fields: bool = False,
        precision: Precision = "fp32",
    ) -> None:
        try:
            config = RankingConfig.model_validate(bundle.config.get("ranking", {}))
            self.scores = config.build(bundle.tasks.names)
        except (ValidationError, ConfigError) as error:
            reason = first_problem(error) if isinstance(error, ValidationError) else error
            raise BundleError(f"bundle {bundle.name}: its ranking section is not valid: {reason}") from error
        if strict_fields:
            config = config.model_copy(update={"unknown_fields": "error"})
        self.bundle = bundle
        self.precision = precision
        self._model = at_precision(bundle.model, precision)
        self.info = ModelInfo(name=name or bundle.name, version=version, digest=bundle.digest)
        self.task_names = bundle.tasks.names
        self.config = config
        """Limits of a request."""
        self._decoder = RequestDecoder(bundle.encoder, config)
        self._warnings = FeatureWarnings(bundle.encoder)
        self.items: StoredItems | None = None
        """Items whose columns requests may leave out; see ``load``."""

    @classmethod
    def load(
        cls,
        source: Path | ModelBundle,
        *,
        name: str | None = None,
        version: str | None = None,
        strict_fields: bool = False,
        precision: Precision = "fp32",
        items: Path | None = None,
        items_known_bytes: int = 0,
    ) -> "Ranker":
        """A ranker that has proved itself: the replay gave the training model's scores, flat and as requests.

        Args:
            items: a store of items, whose columns a request may leave out.
            items_known_bytes: room for what items, the first ones of the store, give in the model's first products,
                which is then computed here and not for every request.

        Raises:
            BundleError: the bundle is damaged, or a feature or task (named) differs.
            SchemaError, DataError: the items are not a store, or not one for this model.
        """
        bundle = source if isinstance(source, ModelBundle) else ModelBundle.load(source)
        ranker = cls(bundle, name=name, version=version, strict_fields=strict_fields, precision=precision)
        bundle.check_replay()
        ranker._check_replay()
        if items is not None:
            ranker._take_items(ItemStore.open(items), items_known_bytes)
        return ranker

    @property
    def request_columns(self) -> Mapping[Side, Mapping[str, RequestColumn]]:
        """Columns that a request may give, by side."""
        return self._decoder.columns

    def rank(self, request: RankRequest) -> RankResponse:
        """Order the candidates of one request.

        Raises:
            RequestError: a field does not fit; it is named.
        """
        (answer,) = self.rank_many([request])
        if isinstance(answer, RequestError):
            raise answer
        return answer

    def rank_many(self, requests: Sequence[RankRequest]) -> list[RankResponse | RequestError]:
        """Order the candidates of several requests in one forward pass; each as if it came alone.

        Returns:
            The answer to each request, or what of it does not fit.
        """
        clock = Clock()
        decoded = [_attempt(self._decode, request) for request in requests]
        clock.stage("decode")
        encoded = [one if isinstance(one, RequestError) else _attempt(self._encode, one) for one in decoded]
        clock.stage("features")
        good = [one for one in encoded if isinstance(one, EncodedRequest)]
        predictions = self._predict_all(good) if good else []
        clock.stage("model")
        orders = [self._order(one, of_one) for one, of_one in zip(good, predictions, strict=True)]
        clock.stage("score")
        timing_ms = clock.timing_ms()
        answers = iter(
            self._response(one, items, not_finite, timing_ms)
            for one, (items, not_finite) in zip(good, orders, strict=True)
        )
        return [one if isinstance(one, RequestError) else next(answers) for one in encoded]

    def score(self, rows: pa.Table) -> NDArray[np.float32]:
        """predictions_NT of flat rows that hold the columns of all sides, as a log does."""
        starts = range(0, rows.num_rows, _CHUNK_ROWS)
        parts = [self.bundle.predict(rows.slice(start, _CHUNK_ROWS)) for start in starts]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.task_names)), np.float32)

    def combine(self, predictions_NT: NDArray[np.floating[Any]], *, score: str | None = None) -> NDArray[np.float64]:
        """score_N by a formula, the default one where none is named; RequestError if there is none of that name."""
        return self.scores.choose(score)[1].evaluate(self._by_task(predictions_NT))

    def _decode(self, request: RankRequest) -> ReadRequest:
        """The columns of a request, and its formula, once its tasks and its size are known to be right."""
        request.limited_to(self.config.max_candidates)
        for index, task in enumerate(request.tasks or ()):
            if task not in self.task_names:
                raise RequestError(f"tasks[{index}]", unknown_name("task", task, self.task_names))
        name, formula = self.scores.choose(request.score)
        columns = (self._decoder if self.items is None else self.items).decode(request)
        return ReadRequest(request, columns, name, formula)

    def _encode(self, decoded: ReadRequest) -> EncodedRequest:
        shared = _encode(self._decoder.shared.encode, decoded.columns.shared, field="user")
        own = decoded.columns.own
        if isinstance(own, CandidateRows):
            assert self.items is not None
            return EncodedRequest(decoded, shared, _encode(self.items.encode, own, field="candidates"))
        return EncodedRequest(
            decoded, shared, EncodedCandidates(_encode(self._decoder.own.encode, own, field="candidates"))
        )

    def _predict_all(self, encoded: Sequence[EncodedRequest]) -> list[NDArray[np.float64]]:
        """predictions_CT of each of several requests."""
        counts = [one.own.num_rows for one in encoded]
        shared = concatenated([one.shared.batch for one in encoded], self._decoder.shared.layout)
        own = concatenated([one.own.rows.batch for one in encoded], self._decoder.own.layout)
        items = None if self.items is None else self.items.known
        known = None if items is None else known_candidates(items, [one.own for one in encoded])
        predictions_CT = self._predict(shared, own, torch.repeat_interleave(torch.tensor(counts)), known)
        return np.split(predictions_CT.astype(np.float64), np.cumsum(counts)[:-1])

    def _predict(
        self, shared: Batch, own: Batch, request_C: Tensor, known: KnownCandidates | None = None
    ) -> NDArray[np.float32]:
        with torch.inference_mode(), autocast(self.precision, torch.device("cpu")):
            predictions_CT = self._model.predict_sided(shared, own, request_C, known)
        result: NDArray[np.float32] = predictions_CT.numpy()
        return result

    def _take_items(self, store: ItemStore, known_bytes: int) -> None:
        """Use a store from now on; what its first items give is computed, and compared with what it is in a request."""
        self.items = StoredItems(store, self.bundle.encoder, self._decoder)
        first = self.bundle.replay.rows.slice(0, 1)
        shared = self._decoder.shared.encode(self._decoder.shared.of_table(first)).batch
        with torch.inference_mode(), autocast(self.precision, torch.device("cpu")):
            known = know_items(self._model, self.items, shared, max_bytes=known_bytes)
        if known is not None:
            check_known(self.items, known, partial(self._predict, shared), tolerance=TOLERANCES[self.precision])
        self.items.known = known

    def _check_replay(self) -> None:
        """The rows of the replay are encoded and scored, as a request of each, as they were in training.

        Raises:
            BundleError: they are encoded otherwise, or a task is scored differently.
        """
        rows, encoder = self.bundle.replay.rows, self.bundle.encoder
        batches = []
        for part, sides in ((self._decoder.shared, SHARED_SIDES), (self._decoder.own, OWN_SIDES)):
            batches.append(part.encode(part.of_table(rows)).batch)
            if not same(batches[-1], encoder.encode(rows, sides=sides, with_labels=False)):
                raise BundleError("replay: rows are encoded otherwise in requests than in training")
        shared, own = batches
        predictions_NT = self._predict(shared, own, torch.arange(rows.num_rows))
        self.bundle.replay.check_predictions(predictions_NT, tolerance=TOLERANCES[self.precision])

    def _response(
        self,
        encoded: EncodedRequest,
        items: list[RankedItem],
        not_finite: list[FeatureWarning],
        timing_ms: dict[str, float],
    ) -> RankResponse:
        decoded = encoded.decoded
        ignored = [
            FeatureWarning(feature=name, code="unknown_field", count=count, hint=self._decoder.hint(name))
            for name, count in decoded.columns.ignored.items()
        ]
        absent = []
        if encoded.own.num_absent and self.items is not None:
            absent.append(FeatureWarning(feature=self.items.item, code="not_in_store", count=encoded.own.num_absent))
        return RankResponse(
            request_id=decoded.request.request_id,
            model=self.info,
            score=ScoreInfo(name=decoded.score, formula=decoded.formula.text),
            items=items,
            warnings=[*ignored, *absent, *self._warnings.of(encoded.shared, encoded.own.rows), *not_finite],
            timing_ms=timing_ms,
        )

    def _order(
        self, encoded: EncodedRequest, predictions_CT: NDArray[np.float64]
    ) -> tuple[list[RankedItem], list[FeatureWarning]]:
        """Items by falling score, ties by rising id; what has no finite score stands last and is warned of."""
        request, decoded, formula = encoded.decoded.request, encoded.decoded.columns, encoded.decoded.formula
        score_C = formula.evaluate(self._by_task(predictions_CT))
        is_finite_C = np.isfinite(score_C)
        scores = pa.array(score_C, mask=~is_finite_C)
        keys = pa.table({"score": scores, "item": decoded.item_keys})
        order = pc.sort_indices(keys, sort_keys=[("score", "descending"), ("item", "ascending")]).to_numpy()
        order = order[: request.top_k]
        names = list(dict.fromkeys(request.tasks or self.task_names))
        columns = [self.task_names.index(name) for name in names]
        items = [
            RankedItem(decoded.item_ids[place], score, dict(zip(names, row, strict=True)))
            for place, score, row in zip(
                order.tolist(),
                scores.take(order).to_pylist(),
                predictions_CT[order][:, columns].tolist(),
                strict=True,
            )
        ]
        num_lost = int((~is_finite_C).sum())
        lost = [FeatureWarning(feature=formula.text, code="not_finite", count=num_lost)] if num_lost else []
        return items, lost

    def _by_task(self, predictions_NT: NDArray[np.floating[Any]]) -> Mapping[str, NDArray[np.float64]]:
        return {name: predictions_NT[:, index].astype(np.float64) for index, name in enumerate(self.task_names)}


def _attempt(work: Callable[[A], B], argument: A) -> B | RequestError:
    try:
        return work(argument)
    except RequestError as error:
        return error


def _encode(encode: Callable[[A], B], rows: A, *, field: str) -> B:
    """Columns of a request as the model reads them; what an encoder refuses of them is the request's fault."""
    try:
        return encode(rows)
    except (DataError, SchemaError) as error:
        raise RequestError(field, str(error)) from error
